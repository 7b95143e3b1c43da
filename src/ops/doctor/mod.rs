//! `doctor`: what this host can do for pronto, what is wrong, and the cure of each. What a newcomer would get wrong: it needs no
//! root and changes nothing; what can only be seen by root is reported as unknown, never as fine.

mod cgroups;
mod emulators;
mod kernel;
mod kvm;
mod nspawn;
mod ping;
mod storage;
pub mod watches;

use serde::Serialize;

use super::Ctx;

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Fine.
    Ok,
    /// It works, but something does not, or not well.
    Warn,
    /// It keeps pronto from working.
    Bad,
    /// It could not be found out.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `kernel`, `binfmt`, `interpreters`, `nspawn`, `cgroups`, `limits`, `network`, `store`, `kvm`.
    pub area: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    pub cure: Option<String>,
}

impl Finding {
    fn new(area: &'static str, level: Level, what: impl Into<String>) -> Finding {
        Finding { area, level, what: what.into(), cure: None }
    }

    fn cure(mut self, cure: impl Into<String>) -> Finding {
        self.cure = Some(cure.into()).filter(|cure: &String| !cure.is_empty());
        self
    }
}

/// Looks at everything, in the order in which a reader should mend it. Needs no root.
pub fn run(ctx: &Ctx) -> Vec<Finding> {
    let mut all = kernel::findings();
    all.extend(nspawn::findings());
    all.extend(emulators::findings(ctx));
    all.extend(cgroups::findings());
    all.extend(watches::findings());
    all.extend(ping::findings());
    all.extend(storage::findings(&ctx.store));
    all.extend(kvm::findings());
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::Quiet;
    use crate::store::Store;

    #[test]
    fn every_area_is_looked_at_and_what_is_wrong_has_a_cure() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Ctx {
            store: Store::at(Some(&dir.path().join("store"))),
            root: None,
            report: Arc::new(Quiet),
            access: Default::default(),
        };
        let all = run(&ctx);
        for area in ["kernel", "binfmt", "interpreters", "nspawn", "cgroups", "network", "store", "kvm"] {
            assert!(all.iter().any(|f| f.area == area), "{area}: {all:?}");
        }
        for finding in &all {
            assert!(!finding.what.is_empty() && !finding.what.ends_with('.'), "{finding:?}");
            assert!(finding.level == Level::Ok || finding.cure.is_some(), "{finding:?}");
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "it left something behind");
    }
}
