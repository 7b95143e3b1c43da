//! On which CPUs of the host a guest may run: `cpus` and `cpus_soft`. What a newcomer would get wrong: the parts are done from left to
//! right, so `^1,0-3` excludes nothing. Source: xl.cfg(5), "CPU Allocation"; Xen, `update_cpumap_range` in tools/xl/xl_parse.c.

use std::collections::BTreeSet;

use super::config::Config;
use super::error::{Error, shown};

/// No host has a CPU of this number. Xen's own bound is 16383.
const LIMIT: u32 = 16384;

/// The CPUs of a domain's virtual CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affinity {
    /// The same set for each.
    Same(CpuSet),
    /// One set for each, from virtual CPU 0 on; those without one may run anywhere.
    Each(Vec<CpuSet>),
}

/// A set of CPUs as it was written: `all,^0`, `0-3,5`, `nodes:0-1,^node:2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(Vec<Part>);

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every CPU.
    All,
    /// CPUs from one to another.
    Cpus {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
        /// Taken out, not put in.
        out: bool,
    },
    /// All CPUs of the NUMA nodes from one to another.
    Nodes {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
        /// Taken out, not put in.
        out: bool,
    },
}

impl CpuSet {
    /// Reads a set. Errors: anything that is none; no part.
    pub fn parse(text: &str) -> Result<CpuSet, String> {
        let parts: Result<Vec<Part>, String> = text.split(',').filter(|part| !part.is_empty()).map(part).collect();
        match parts? {
            parts if parts.is_empty() => Err("expected CPUs, as \"all\" or \"0-3,^1\", found nothing".to_owned()),
            parts => Ok(CpuSet(parts)),
        }
    }

    /// Its parts.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The CPUs that it means on a host with these. `node` gives a NUMA node's. Errors: a node that is not there, or no CPU is left. CPUs that
    /// the host lacks count for nothing, as in xl.
    pub fn resolve(
        &self,
        host: &BTreeSet<u32>,
        node: impl Fn(u32) -> Option<BTreeSet<u32>>,
    ) -> Result<BTreeSet<u32>, String> {
        let mut chosen = BTreeSet::new();
        for part in &self.0 {
            let (these, out) = match *part {
                Part::All => (host.clone(), false),
                Part::Cpus { first, last, out } => (host.range(first..=last).copied().collect(), out),
                Part::Nodes { first, last, out } => {
                    let mut cpus = BTreeSet::new();
                    for number in first..=last {
                        cpus.extend(node(number).ok_or_else(|| format!("this host has no NUMA node {number}"))?);
                    }
                    (cpus, out)
                }
            };
            match out {
                true => chosen.retain(|cpu| !these.contains(cpu)),
                false => chosen.extend(these),
            }
        }
        if chosen.is_empty() { Err("no CPU of this host is left".to_owned()) } else { Ok(chosen) }
    }
}

fn part(text: &str) -> Result<Part, String> {
    let (out, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
    let nodes = rest.strip_prefix("nodes:").or_else(|| rest.strip_prefix("node:"));
    let range = nodes.unwrap_or(rest);
    if range == "all" {
        return if out { Err("'^' and 'all' do not go together".to_owned()) } else { Ok(Part::All) };
    }
    let wrong = || format!("expected CPUs, as 2, 0-3, ^1, all or nodes:0-1, found {}", shown(text));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let digits = text.trim_start_matches([' ', '\t']);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|&n| plain && n < LIMIT).ok_or_else(wrong)
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok(if nodes.is_some() { Part::Nodes { first, last, out } } else { Part::Cpus { first, last, out } })
}

impl Config {
    /// `cpus`: where the virtual CPUs may run. Errors: see [`CpuSet::parse`].
    pub fn cpus(&self) -> Result<Option<Affinity>, Error> {
        self.affinity("cpus")
    }

    /// `cpus_soft`: where they had best run. Errors: see [`CpuSet::parse`].
    pub fn cpus_soft(&self) -> Result<Option<Affinity>, Error> {
        self.affinity("cpus_soft")
    }

    fn affinity(&self, key: &str) -> Result<Option<Affinity>, Error> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        let sets: Result<Vec<CpuSet>, Error> = self
            .text_or_texts(key)?
            .into_iter()
            .map(|(text, place)| CpuSet::parse(text).map_err(|why| Error::new(place, format!("{key}: {why}"))))
            .collect();
        Ok(match (entry.value.atom(), sets?) {
            (Some(_), sets) => sets.into_iter().next().map(Affinity::Same),
            (None, sets) => Some(Affinity::Each(sets)),
        })
    }
}
