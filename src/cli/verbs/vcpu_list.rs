//! `vcpu-list`: virtual CPUs in xl's columns. What a newcomer would get wrong: domains that share the host's kernel have none of their own.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// List virtual CPUs of domains with a kernel of their own
#[derive(Debug, Args)]
pub struct VcpuList {
    /// The domains' names or domids; all of them when none is given
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domains: Vec<DomainRef>,
}

impl Verb for VcpuList {
    const NAME: &'static str = "vcpu-list";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let mut all = Vec::new();
        if self.domains.is_empty() {
            all = devices::vcpus(&ctx, None)?;
        }
        for domain in &self.domains {
            all.extend(devices::vcpus(&ctx, Some(domain))?);
        }
        let header =
            "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)".to_owned();
        let rows = all.into_iter().map(|cpu| {
            let state = if cpu.paused {
                "--p"
            } else if cpu.runs {
                "r--"
            } else {
                "-b-"
            };
            format!(
                "{:<32} {:>5} {:>5} {:>4}   {state} {:>9.1}  all / all",
                cpu.name, cpu.domid, cpu.index, cpu.cpu, cpu.seconds
            )
        });
        output::lines(std::iter::once(header).chain(rows))?;
        Ok(0)
    }
}
