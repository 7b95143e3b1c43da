//! kaxon: guests that share the host's kernel, run by systemd-nspawn. What a newcomer would get wrong: nspawn does not
//! register with machined, does not make our cgroup and does not find the image; all that is done around it.

pub mod argv;
pub mod emulation;

use super::{Backend, Launch, Plan};

/// systemd-nspawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nspawn;

impl Backend for Nspawn {
    fn name(&self) -> &'static str {
        "nspawn"
    }

    fn launch(&self, plan: &Plan) -> Launch {
        argv::launch(plan)
    }
}
