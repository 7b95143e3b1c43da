//! `trigger`: a machine's buttons. What a newcomer would get wrong: `reset` asks nobody; the file systems are as after a power cut.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::verbs;

/// Press a button of a domain with a machine of its own
#[derive(Debug, Args)]
pub struct Trigger {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// nmi, reset or power
    #[arg(value_name = "TRIGGER", value_parser = which)]
    trigger: verbs::Trigger,
}

impl Verb for Trigger {
    const NAME: &'static str = "trigger";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        verbs::trigger(&ctx, &self.domain, self.trigger)?;
        Ok(0)
    }
}

fn which(word: &str) -> Result<verbs::Trigger, String> {
    match word {
        "nmi" => Ok(verbs::Trigger::Nmi),
        "reset" => Ok(verbs::Trigger::Reset),
        "power" => Ok(verbs::Trigger::Power),
        "init" | "sleep" | "s3resume" => Err(format!("'{word}' is of Xen's machines alone: nmi, reset or power")),
        other => Err(format!("'{other}' is no trigger: nmi, reset or power")),
    }
}
