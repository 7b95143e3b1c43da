//! The verbs of the command line: one file each, an `Args` struct whose doc comments are the help, and `run`. What a newcomer
//! would get wrong: the struct is the only definition: the help, the completions and docs/cli/ are made from it.

mod arch;
mod binfmt;
mod block_attach;
mod block_detach;
mod block_list;
mod cache;
mod completions;
mod console;
mod cp;
mod create;
mod delete;
mod destroy;
mod doctor;
mod domid;
mod domname;
mod dump_core;
mod exec;
mod export;
mod help;
mod images;
mod import;
mod info;
mod inspect;
mod list;
mod logs;
mod mem_set;
mod network_attach;
mod network_detach;
mod network_list;
mod new;
mod pause;
mod profile;
mod prune;
mod pull;
mod qemu_monitor_command;
mod reboot;
mod rename;
mod restore;
mod rmi;
mod run;
mod save;
mod short;
mod shutdown;
mod start;
mod tag;
mod trigger;
mod unpause;
mod uptime;
mod vcpu_list;
mod verify;
mod version;

use clap::{ArgMatches, Args, Command};

use super::failure::{Failure, Outcome};
use super::front::Front;

pub use help::brief;
pub use short::short_form;

/// A verb's words, and what it does.
pub trait Verb: Args {
    /// How it is called.
    const NAME: &'static str;
    /// Whether it runs a command of the user's, so that its own failures are docker's 125.
    const AROUND: bool = false;
    /// Whether `-N` means something to it.
    const DRY_RUN: bool = false;
    /// Does it.
    fn run(self, front: &Front) -> Outcome;
}

/// A verb as the dispatcher knows it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// How it is called.
    pub name: &'static str,
    /// See [`Verb::AROUND`].
    pub around: bool,
    /// See [`Verb::DRY_RUN`].
    pub dry_run: bool,
    augment: fn(Command) -> Command,
    run: fn(&Front, &ArgMatches) -> Outcome,
}

const fn entry<V: Verb>() -> Entry {
    Entry { name: V::NAME, around: V::AROUND, dry_run: V::DRY_RUN, augment: V::augment_args, run: run_as::<V> }
}

fn run_as<V: Verb>(front: &Front, matches: &ArgMatches) -> Outcome {
    // The derived reader only fails on a definition that contradicts itself.
    let verb = V::from_arg_matches(matches).map_err(|e| Failure::usage(format!("pronto: {e}")))?;
    verb.run(front)
}

/// All verbs, in the order of the help: what is used daily comes first.
pub const ALL: &[Entry] = &[
    entry::<create::Create>(),
    entry::<run::Run>(),
    entry::<list::List>(),
    entry::<console::Console>(),
    entry::<exec::Exec>(),
    entry::<profile::Profile>(),
    entry::<logs::Logs>(),
    entry::<cp::Cp>(),
    entry::<shutdown::Shutdown>(),
    entry::<destroy::Destroy>(),
    entry::<reboot::Reboot>(),
    entry::<pause::Pause>(),
    entry::<unpause::Unpause>(),
    entry::<save::Save>(),
    entry::<restore::Restore>(),
    entry::<new::New>(),
    entry::<start::Start>(),
    entry::<delete::Delete>(),
    entry::<rename::Rename>(),
    entry::<domid::Domid>(),
    entry::<domname::Domname>(),
    entry::<uptime::Uptime>(),
    entry::<info::Info>(),
    entry::<vcpu_list::VcpuList>(),
    entry::<mem_set::MemSet>(),
    entry::<trigger::Trigger>(),
    entry::<dump_core::DumpCore>(),
    entry::<block_list::BlockList>(),
    entry::<block_attach::BlockAttach>(),
    entry::<block_detach::BlockDetach>(),
    entry::<network_list::NetworkList>(),
    entry::<network_attach::NetworkAttach>(),
    entry::<network_detach::NetworkDetach>(),
    entry::<qemu_monitor_command::QemuMonitorCommand>(),
    entry::<pull::Pull>(),
    entry::<images::Images>(),
    entry::<inspect::Inspect>(),
    entry::<tag::Tag>(),
    entry::<rmi::Rmi>(),
    entry::<import::Import>(),
    entry::<export::Export>(),
    entry::<cache::Cache>(),
    entry::<prune::Prune>(),
    entry::<verify::Verify>(),
    entry::<binfmt::Binfmt>(),
    entry::<arch::Arch>(),
    entry::<doctor::Doctor>(),
    entry::<completions::Completions>(),
    entry::<help::Help>(),
    entry::<version::Version>(),
];

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|entry| entry.name)
}

/// The verb of exactly this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

impl Entry {
    /// Its definition, as it stands below `pronto`.
    pub fn command(&self) -> Command {
        (self.augment)(Command::new(self.name))
            .bin_name(format!("pronto {}", self.name))
            .display_name(format!("pronto-{}", self.name))
            .disable_help_subcommand(true)
    }

    /// Runs it.
    pub fn run(&self, front: &Front, matches: &ArgMatches) -> Outcome {
        (self.run)(front, matches)
    }
}
