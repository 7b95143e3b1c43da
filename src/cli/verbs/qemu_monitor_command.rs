//! `qemu-monitor-command`: a line for QEMU's own monitor. What a newcomer would get wrong: QEMU prints its complaints too, and calls none of
//! it a failure. Source: xl(1).

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::domain::DomainRef;
use crate::ops::hexagon::verbs;

/// Have the QEMU of a domain do something
#[derive(Debug, Args)]
pub struct QemuMonitorCommand {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// A command of QEMU's monitor; its words may be several
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Verb for QemuMonitorCommand {
    const NAME: &'static str = "qemu-monitor-command";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let said = verbs::monitor_command(&ctx, &self.domain, &self.command.join(" "))?;
        output::own(&said.replace("\r\n", "\n"))?;
        Ok(0)
    }
}
