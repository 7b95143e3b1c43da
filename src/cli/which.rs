//! Whose kernel a guest gets: what the option, the program's name (`hx`, `kx`) and the key `backend` say, and what follows from a kernel, disk or
//! interface of its own. What a newcomer would get wrong: "hexagon" is either of two backends, so it agrees with both of them.

use super::failure::Failure;
use super::front::Globals;
use super::gather;
use super::guest::MachineOptions;
use crate::domain::Backend;
use crate::domain::xlcfg::{BackendChoice, Config, Place};
use crate::ops::{self, Kind};

/// Decides. Errors: what was said contradicts itself, or there is no driver for it.
pub fn backend(config: &Config, machine: &MachineOptions, globals: &Globals) -> Result<Backend, Failure> {
    let said = option(machine.backend, globals)?;
    let key = config.backend().map_err(gather::told)?;
    let choice = match (said, key) {
        (Some(option), Some(key)) => match agree(option, key) {
            None if gather::in_words(config, "backend") => {
                let by = if machine.backend.or(globals.backend).is_some() { "--backend" } else { "the program's name" };
                return Err(Failure::usage(format!(
                    "pronto: {by} and backend= say different things: give one of them"
                )));
            }
            both => Some(both.unwrap_or(option)),
        },
        (option, key) => option.or(key),
    };
    let place = config.get("backend").filter(|_| key == Some(BackendChoice::Xen)).map(|entry| entry.value.place());
    driver(choice, owns_kernel(config, machine), place)
}

/// The same for what takes no keys.
pub fn of_options(globals: &Globals) -> Result<Backend, Failure> {
    driver(option(None, globals)?, false, None)
}

/// What the options say, and the name that the program was called by.
fn option(verbs: Option<BackendChoice>, globals: &Globals) -> Result<Option<BackendChoice>, Failure> {
    let mut said: Option<BackendChoice> = None;
    for choice in [verbs, globals.backend, globals.called].into_iter().flatten() {
        said = match said {
            None => Some(choice),
            Some(before) => Some(agree(before, choice).ok_or_else(|| {
                Failure::usage("pronto: --backend is said twice, or contradicts the program's name: give one of them")
            })?),
        };
    }
    Ok(said)
}

/// What two sayings mean together; none when they contradict each other.
fn agree(a: BackendChoice, b: BackendChoice) -> Option<BackendChoice> {
    use BackendChoice::{Auto, Hexagon, Qemu, Xen};
    match (a, b) {
        (Auto, other) | (other, Auto) => Some(other),
        (Hexagon, one @ (Qemu | Xen)) | (one @ (Qemu | Xen), Hexagon) => Some(one),
        (a, b) => (a == b).then_some(a),
    }
}

/// Whether something is asked for that only a guest with a kernel of its own has.
pub fn owns_kernel(config: &Config, machine: &MachineOptions) -> bool {
    let listed = |key| config.list(key).is_ok_and(|list| list.is_some_and(|values| !values.is_empty()));
    let options = machine.kernel.is_some() || !machine.disks.is_empty() || !machine.vifs.is_empty();
    options || config.get("kernel").is_some() || listed("disk") || listed("vif")
}

/// `place` is where a key says so.
fn driver(choice: Option<BackendChoice>, owns_kernel: bool, place: Option<&Place>) -> Result<Backend, Failure> {
    match choice {
        Some(BackendChoice::Kaxon) => Ok(Backend::Nspawn),
        Some(BackendChoice::Hexagon | BackendChoice::Qemu) => Ok(Backend::Qemu),
        None | Some(BackendChoice::Auto) => Ok(if owns_kernel { Backend::Qemu } else { Backend::Nspawn }),
        Some(BackendChoice::Xen) => {
            let at = place.map(|place| format!("{place}: ")).unwrap_or_default();
            let error = ops::Error::new(Kind::Create, format!("{at}the driver of a Xen host is not joined yet"));
            Err(error.hint("leave 'xen' out: --backend qemu makes guests with a kernel of their own").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(words: &[&str], option: Option<BackendChoice>, called: Option<BackendChoice>) -> Result<Backend, u8> {
        let mut config = Config::default();
        words.iter().for_each(|word| config.add_word(word.as_bytes()).unwrap());
        let machine = MachineOptions { backend: option, ..MachineOptions::default() };
        let globals = Globals { called, ..Globals::default() };
        backend(&config, &machine, &globals).map_err(|failure| failure.code(false))
    }

    #[test]
    fn who_decides() {
        use BackendChoice::{Auto, Hexagon, Kaxon, Qemu, Xen};
        for (words, option, called, want) in [
            (&[][..], None, None, Ok(Backend::Nspawn)),
            (&["kernel=/k"], None, None, Ok(Backend::Qemu)),
            (&["disk=['/a,raw,xvdb']"], Some(Auto), None, Ok(Backend::Qemu)),
            (&["vif=[]", "disk=[]"], None, None, Ok(Backend::Nspawn)),
            (&["vif=['bridge=a']"], None, None, Ok(Backend::Qemu)),
            (&["kernel=/k"], None, Some(Kaxon), Ok(Backend::Nspawn)),
            (&[], None, Some(Hexagon), Ok(Backend::Qemu)),
            (&["backend=qemu"], None, Some(Hexagon), Ok(Backend::Qemu)),
            (&["backend=kaxon"], None, Some(Hexagon), Err(2)),
            (&["backend=auto"], Some(Kaxon), None, Ok(Backend::Nspawn)),
            (&["backend=qemu"], Some(Kaxon), None, Err(2)),
            (&[], Some(Kaxon), Some(Hexagon), Err(2)),
            (&["backend=xen"], None, Some(Hexagon), Err(3)),
            (&[], Some(Xen), None, Err(3)),
            (&[], Some(Qemu), Some(Hexagon), Ok(Backend::Qemu)),
        ] {
            assert_eq!(choose(words, option, called), want, "{words:?} {option:?} {called:?}");
        }
    }

    #[test]
    fn an_option_overrules_a_file() {
        let config = Config::parse("web.cfg", b"backend = 'qemu'").unwrap();
        let machine = MachineOptions { backend: Some(BackendChoice::Kaxon), ..MachineOptions::default() };
        assert_eq!(backend(&config, &machine, &Globals::default()).unwrap(), Backend::Nspawn);
    }
}
