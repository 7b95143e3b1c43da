//! Raspberry Pi OS by name, from the index of Raspberry Pi's own imager. What a newcomer would get wrong: the index promises the SHA-256
//! of the *decompressed* image; and "armhf" is ARMv6 there, not Debian's ARMv7. Source: rpi-imager, doc/ and
//! `os_list_imagingutility_v4.json`; pi-gen for the names of the files.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::checksums::Expect;
use super::fetch::{Patience, Web, cached, web};
use super::platform::{self, Wanted};
use super::sources::Settings;
use super::streams::json;
use super::tarball::{self, Found};
use super::{Digest, Error, Result, oci};
use crate::domain::{Platform, Report};
use crate::store::Store;
use crate::store::images::Entry;

/// The longest index that is read, in bytes.
const LIMIT: u64 = 8 << 20;
/// How deep lists may hold lists.
const DEPTH: u32 = 4;
/// How many further documents are looked into.
const DOCUMENTS: usize = 8;

/// Which system.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Release {
    /// The current one.
    Latest,
    /// The one before.
    Oldstable,
    /// Debian's name of it.
    Named(String),
    /// The day it was made, `2026-06-18`.
    Of(String),
}

/// `raspios/RELEASE[-lite|-full][:ARCH]`, where RELEASE is `bookworm`, `latest`, `oldstable` or a date; or what arm-runner-action calls
/// it: `raspios_lite_arm64:latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    release: Release,
    /// `lite`, `full`, or nothing.
    flavour: String,
    /// The platform, if the word says it.
    pub platform: Option<Platform>,
}

/// What is wanted when nobody said: there is no Raspberry Pi of any other CPU.
pub fn usual() -> Vec<(String, Option<String>)> {
    vec![("arm64".to_owned(), None)]
}

/// The platform of a name in the files: `armhf` runs on the first of all boards.
fn platform_of(arch: &str) -> Option<Platform> {
    let (architecture, variant) = match arch {
        "arm64" => ("arm64", None),
        "armhf" => ("arm", Some("v6".to_owned())),
        _ => return None,
    };
    Some(Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant })
}

fn is_date(text: &str) -> bool {
    let digit = |(at, b): (usize, u8)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(digit)
}

impl Name {
    /// Reads a word; `None` when it is not about Raspberry Pi OS. Errors: a sentence.
    pub fn parse(word: &str) -> Option<std::result::Result<Name, String>> {
        if let Some(rest) = word.strip_prefix("raspios/") {
            return Some(Name::of_label(rest));
        }
        let (name, tag) = word.split_once(':')?;
        if name == "dietpi" || name.strip_prefix("raspi_").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        {
            return Some(Err("Raspberry Pi's index does not have it: give the URL of its image".to_owned()));
        }
        let mut parts: Vec<&str> = name.split('_').collect();
        if !matches!(parts.first(), Some(&"raspios" | &"raspbian")) {
            return None;
        }
        // In this order, each or none: raspios_oldstable_lite_arm64.
        let mut take = |known: &[&str]| (parts.len() > 1 && known.contains(&parts[1])).then(|| parts.remove(1));
        let old = take(&["oldstable"]).is_some();
        let flavour = take(&["lite", "full"]).unwrap_or_default();
        let arch = take(&["arm64", "armhf"]).unwrap_or("armhf");
        if parts.len() > 1 || name.contains('/') {
            return None;
        }
        let release = match tag {
            "latest" if old => Release::Oldstable,
            "latest" => Release::Latest,
            date if is_date(date) => Release::Of(date.to_owned()),
            _ => return Some(Err("'latest' or a date (2026-06-18) must follow its ':'".to_owned())),
        };
        Some(Ok(Name { release, flavour: flavour.to_owned(), platform: platform_of(arch) }))
    }

    fn of_label(rest: &str) -> std::result::Result<Name, String> {
        let (name, arch) = rest.split_once(':').map_or((rest, None), |(name, arch)| (name, Some(arch)));
        let (name, flavour) = match name.rsplit_once('-') {
            Some((name, flavour @ ("lite" | "full"))) => (name, flavour),
            _ => (name, ""),
        };
        let release = match name {
            "latest" => Release::Latest,
            "oldstable" => Release::Oldstable,
            date if is_date(date) => Release::Of(date.to_owned()),
            named if !named.is_empty() && named.bytes().all(|b| b.is_ascii_lowercase()) => {
                Release::Named(named.to_owned())
            }
            _ => return Err("raspios/RELEASE[-lite|-full][:arm64|:armhf] is how they are named".to_owned()),
        };
        let platform = match arch {
            Some(arch) => Some(platform_of(arch).ok_or("Raspberry Pi OS is for arm64 and armhf")?),
            None => None,
        };
        Ok(Name { release, flavour: flavour.to_owned(), platform })
    }

    /// The reference under which all its platforms are stored.
    pub fn reference(&self) -> String {
        Name { platform: None, ..self.clone() }.to_string()
    }

    fn is(&self, build: &Build<'_>) -> bool {
        let release = match &self.release {
            Release::Latest => !build.oldstable,
            Release::Oldstable => build.oldstable,
            Release::Named(name) => build.release == name,
            Release::Of(date) => build.date == date,
        };
        release && build.flavour == self.flavour
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = match &self.release {
            Release::Latest => "latest",
            Release::Oldstable => "oldstable",
            Release::Named(text) | Release::Of(text) => text,
        };
        write!(f, "raspios/{release}")?;
        if !self.flavour.is_empty() {
            write!(f, "-{}", self.flavour)?;
        }
        match &self.platform {
            Some(p) => write!(f, ":{}", if p.architecture == "arm" { "armhf" } else { "arm64" }),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct List {
    os_list: Vec<Value>,
}

/// An entry of a list. Others' entries are in it, too, so none that is odd may spoil the whole.
#[derive(Debug, Clone)]
struct Item {
    url: String,
    extract_sha256: String,
    image_download_size: u64,
    image_download_sha256: String,
    subitems: Vec<Value>,
    subitems_url: String,
}

impl Item {
    fn of(mut entry: Value) -> Item {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        Item {
            url: text("url"),
            extract_sha256: text("extract_sha256"),
            image_download_size: entry["image_download_size"].as_u64().unwrap_or(0),
            image_download_sha256: text("image_download_sha256"),
            subitems_url: text("subitems_url"),
            subitems: match entry.get_mut("subitems").map(Value::take) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
        }
    }
}

/// What the name of an image's file says.
#[derive(Debug, PartialEq, Eq)]
struct Build<'a> {
    date: &'a str,
    release: &'a str,
    arch: &'a str,
    flavour: &'a str,
    oldstable: bool,
}

impl<'a> Build<'a> {
    /// `…/2026-06-18-raspios-trixie-arm64-lite.img.xz`.
    fn of(url: &'a str) -> Option<Build<'a>> {
        let name = url.rsplit('/').next()?.strip_suffix(".img.xz")?;
        let (date, rest) = name.split_at_checked(10).filter(|(date, _)| is_date(date))?;
        let mut parts = rest.strip_prefix("-raspios-")?.split('-');
        let (release, arch, flavour) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        let whole = parts.next().is_none();
        whole.then_some(Build { date, release, arch, flavour, oldstable: url.contains("_oldstable") })
    }
}

/// An image for the best of the platforms that are wanted: what is stored unless `ask`, else the newest that the index names, fetched
/// if it is another one. Says too whether it was fetched.
pub fn obtain(store: &Store, name: &Name, wanted: Wanted<'_>, ask: bool, report: &dyn Report) -> Result<(Entry, bool)> {
    let reference = name.reference();
    if !ask {
        if let Some(entry) = oci::stored(store, &reference, wanted)? {
            return Ok((entry, false));
        }
    }
    let index = Settings::load(store)?.raspios;
    let step = report.begin(&format!("looking up {reference}"), None);
    let web = Web::new(Patience::default())?;
    let items = Look { web: &web, store, index: &index, ask, report }
        .items(|item| Build::of(&item.url).is_some_and(|b| name.is(&b)))?;
    let found = choose(&items, name, &index, wanted)?;
    step.done("");
    tarball::obtain(store, &web, &found, report)
}

/// A walk through the index.
struct Look<'a> {
    web: &'a Web,
    store: &'a Store,
    index: &'a str,
    ask: bool,
    report: &'a dyn Report,
}

impl Look<'_> {
    /// All images of Raspberry Pi OS. Lists in other documents are only looked into while nothing is what is wanted.
    fn items(&self, is_wanted: impl Fn(&Item) -> bool) -> Result<Vec<Item>> {
        let mut images = Vec::new();
        let mut documents = vec![(self.index.to_owned(), 0)];
        let mut at = 0;
        while let Some((url, depth)) = documents.get(at).cloned() {
            let list = cached::document(self.web, self.store, &url, LIMIT, self.ask, self.report, |bytes| {
                json::<List>(bytes, &url)
            })?;
            self.gather(list.os_list, depth, &mut images, &mut documents);
            at += 1;
            if at > DOCUMENTS || images.iter().any(&is_wanted) {
                break;
            }
        }
        Ok(images)
    }

    fn gather(&self, items: Vec<Value>, depth: u32, images: &mut Vec<Item>, documents: &mut Vec<(String, u32)>) {
        for mut item in items.into_iter().map(Item::of) {
            let below = std::mem::take(&mut item.subitems);
            let more = &item.subitems_url;
            if depth < DEPTH {
                // Others' lists are on others' servers, and what we look for is not in them.
                if !more.is_empty() && same_server(more, self.index) && documents.iter().all(|(url, _)| url != more) {
                    documents.push((more.clone(), depth + 1));
                }
                self.gather(below, depth + 1, images, documents);
            }
            if Build::of(&item.url).is_some() {
                images.push(item);
            }
        }
    }
}

fn same_server(url: &str, other: &str) -> bool {
    match (reqwest::Url::parse(url), reqwest::Url::parse(other)) {
        (Ok(url), Ok(other)) => url.origin() == other.origin(),
        _ => false,
    }
}

fn choose(items: &[Item], name: &Name, index: &str, wanted: Wanted<'_>) -> Result<Found> {
    let all = || items.iter().filter_map(|item| Some((item, Build::of(&item.url)?)));
    let mut fitting: Vec<(Platform, &Item, Build<'_>)> =
        all().filter(|(_, b)| name.is(b)).filter_map(|(i, b)| Some((platform_of(b.arch)?, i, b))).collect();
    // Of equals the first is taken: the newest.
    fitting.sort_by(|a, b| b.2.date.cmp(a.2.date));
    let what = name.reference();
    if fitting.is_empty() {
        let dash = |flavour: &str| if flavour.is_empty() { String::new() } else { format!("-{flavour}") };
        let mut have: Vec<String> =
            all().map(|(_, b)| format!("raspios/{}{} ({})", b.release, dash(b.flavour), b.date)).collect();
        have.sort_unstable();
        have.dedup();
        have.truncate(20);
        return Err(Error::NotFound { what, place: web::host(index), why: format!("it has {}", have.join(", ")) });
    }
    let Some(best) = platform::best(fitting.iter().map(|(p, ..)| p), wanted) else {
        let available = platform::list(fitting.iter().map(|(p, ..)| p));
        return Err(Error::NoPlatform { what, wanted: platform::wanted_text(wanted), available });
    };
    let (platform, item, build) = &fitting[best];
    let refuse = |why: String| Error::Malformed { what: what.clone(), why };
    let content = Digest::from_hex(&item.extract_sha256);
    let content = content.ok_or_else(|| refuse("the index has no SHA-256 of what is in it".into()))?;
    if !item.url.starts_with("https://") && !same_server(&item.url, index) {
        return Err(refuse(format!("the address '{}' in the index is refused", item.url.escape_debug())));
    }
    let stamp = Some(format!("{} {content}", build.date));
    let expect = Expect {
        sha256: Digest::from_hex(&item.image_download_sha256),
        content: Some(content),
        size: (item.image_download_size > 0).then_some(item.image_download_size),
        ..Expect::default()
    };
    Ok(Found { reference: what, platform: platform.clone(), url: item.url.clone(), expect, stamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, want) in [
            ("raspios/bookworm", "raspios/bookworm"),
            ("raspios/trixie-lite", "raspios/trixie-lite"),
            ("raspios/bookworm-full:armhf", "raspios/bookworm-full:armhf"),
            ("raspios/2026-06-18-lite:arm64", "raspios/2026-06-18-lite:arm64"),
            ("raspios_lite:latest", "raspios/latest-lite:armhf"),
            ("raspbian_lite:latest", "raspios/latest-lite:armhf"),
            ("raspios_lite_arm64:latest", "raspios/latest-lite:arm64"),
            ("raspios_oldstable_lite:latest", "raspios/oldstable-lite:armhf"),
            ("raspios_oldstable_lite_arm64:latest", "raspios/oldstable-lite:arm64"),
            ("raspios_lite:2021-03-04", "raspios/2021-03-04-lite:armhf"),
        ] {
            let name = Name::parse(word).unwrap().unwrap();
            assert_eq!(name.to_string(), want, "{word}");
            assert_eq!(Name::parse(want).unwrap().unwrap(), name);
        }
        for bad in [
            "raspios/",
            "raspios/-lite",
            "raspios/Bookworm",
            "raspios/a/b",
            "raspios/bookworm:riscv64",
            "raspios_lite:x",
            "raspios_lite:",
            "dietpi:rpi_armv8_bookworm",
            "raspi_1_bullseye:20220121",
        ] {
            assert!(Name::parse(bad).unwrap().is_err(), "{bad}");
        }
        for other in
            ["raspios", "raspbian/bookworm", "raspios_lite_s390x:latest", "raspios_lite/x:latest", "raspi_os:1"]
        {
            assert!(Name::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn file_names() {
        let url = "https://h/raspios_oldstable_lite_arm64/images/x/2026-06-18-raspios-bookworm-arm64-lite.img.xz";
        let want = Build { date: "2026-06-18", release: "bookworm", arch: "arm64", flavour: "lite", oldstable: true };
        assert_eq!(Build::of(url), Some(want));
        assert_eq!(Build::of("2021-03-04-raspios-buster-armhf.img.xz").unwrap().flavour, "");
        for other in [
            "",
            "x.img.xz",
            "2026-06-18-raspios.img.xz",
            "2026-06-18-raspios-a-b-c-d.img.xz",
            "ééééé-raspios-a-b.img.xz",
            "2020-02-13-raspbian-buster-lite.zip",
        ] {
            assert_eq!(Build::of(other), None, "{other}");
        }
    }
}
