//! What a configuration becomes for each backend.

use super::*;
use crate::domain::Accel;

fn config(words: &[&str]) -> Config {
    let mut config = Config::default();
    words.iter().for_each(|word| config.add_word(word.as_bytes()).unwrap());
    config.check().unwrap();
    config
}

fn says(word: &str, backend: Backend) -> String {
    described(&config(&[word]), backend).unwrap_err().to_string()
}

#[test]
fn every_key_of_a_guest_that_shares_the_kernel() {
    let all = config(&[
        "name=web-1",
        "image=debian/bookworm",
        "memory=512",
        "maxmem = '1g'",
        "vcpus=2",
        "cpus=\"0-3,^1\"",
        "hostname=h.example",
        "arch=arm64",
        "network=none",
        "on_poweroff=restart",
        "on_reboot=\"destroy\";",
        "on_crash='restart'",
        "userns=no",
        "binfmt=host",
        "accel=build",
        "accel_exclude='make,sed'",
    ]);
    assert_eq!(all.unheeded(keys::Backend::Kaxon), []);
    let want = Described {
        name: Some(Name::new("web-1").unwrap()),
        image: Some("debian/bookworm".into()),
        memory: Some(512 << 20),
        maxmem: Some(1 << 30),
        vcpus: Some(2),
        cpus: Some("0,2-3".into()),
        hostname: Some("h.example".into()),
        arch: Some("arm64".into()),
        network: Some(Network::None),
        on_poweroff: Some(Action::Restart),
        on_reboot: Some(Action::Destroy),
        on_crash: Some(Action::Restart),
        userns: Some(false),
        binfmt: Some(Registry::Host),
        accel: Some(Accelerator::Native(Accel::Build)),
        accel_exclude: Some(vec!["make".into(), "sed".into()]),
        ..Described::default()
    };
    assert_eq!(described(&all, Backend::Nspawn).unwrap(), want);
}

#[test]
fn every_key_of_a_guest_with_a_kernel_of_its_own() {
    let disk = "format=qcow2,vdev=xvdb,target=/srv/a, b.qcow2";
    let all = config(&[
        "kernel=boot/vmlinuz",
        "ramdisk=/boot/initrd",
        "root=/dev/xvda",
        "extra=quiet",
        "vcpus=1",
        "maxvcpus=4",
        &format!("disk=['{disk}']"),
        "vif=['mac=00:16:3e:00:00:01,bridge=br0']",
        "accel=tcg",
        "on_poweroff=preserve",
        "on_reboot=coredump-restart",
        "on_crash=coredump-destroy",
    ]);
    assert_eq!(all.unheeded(keys::Backend::Qemu), []);
    let want = Described {
        kernel: Some("boot/vmlinuz".into()),
        ramdisk: Some("/boot/initrd".into()),
        cmdline: Some("root=/dev/xvda quiet".into()),
        vcpus: Some(1),
        max_vcpus: Some(4),
        disks: vec![disk.into()],
        vifs: vec!["mac=00:16:3e:00:00:01,bridge=br0".into()],
        accel: Some(Accelerator::Tcg),
        on_poweroff: Some(Action::Preserve),
        on_reboot: Some(Action::CoredumpRestart),
        on_crash: Some(Action::CoredumpDestroy),
        ..Described::default()
    };
    assert_eq!(described(&all, Backend::Qemu).unwrap(), want);
}

/// What was told as doing nothing is not stored as if it had been done.
#[test]
fn what_a_backend_does_nothing_with_does_not_come_through() {
    let both =
        config(&["kernel=/k", "maxvcpus=4", "disk=['/a,vhd,xvdb']", "vif=['']", "cpus=[ '0', '1' ]", "userns=1"]);
    let kaxon = described(&config(&["kernel=/k", "disk=['/a,vhd,xvdb']", "vif=['']", "cmdline=x"]), Backend::Nspawn);
    assert_eq!(kaxon.unwrap(), Described::default());
    let named: Vec<String> = both.unheeded(keys::Backend::Kaxon).into_iter().map(|unheeded| unheeded.key).collect();
    assert_eq!(named, ["'kernel'", "'maxvcpus'", "'disk'", "'vif'"]);
    let qemu =
        described(&config(&["cpus=[ '0', '1' ]", "userns=1", "binfmt=host", "accel_exclude=sed"]), Backend::Qemu);
    assert_eq!(qemu.unwrap(), Described::default());
}

#[test]
fn what_a_backend_cannot_do() {
    for (word, backend, want) in [
        (
            "on_crash=preserve",
            Backend::Nspawn,
            "on_crash: 'preserve' needs a guest with a kernel of its own (backend=qemu)",
        ),
        ("on_reboot=coredump-restart", Backend::Nspawn, "on_reboot: 'coredump-restart' needs a guest with a kernel"),
        ("on_reboot=rename-restart", Backend::Nspawn, "'rename-restart' cannot be done yet: destroy or restart"),
        ("on_reboot=rename-restart", Backend::Qemu, "'rename-restart' cannot be done yet: destroy, restart, preserve,"),
        ("on_crash=soft-reset", Backend::Qemu, "on_crash: 'soft-reset' cannot be done yet"),
        ("cpus=['0','1']", Backend::Nspawn, "cpus: a guest that shares the kernel has one set"),
        ("cpus=nodes:0", Backend::Nspawn, "cpus: NUMA nodes mean nothing here"),
        ("cpus=all,^0", Backend::Nspawn, "cpus: 'all' stands alone"),
        ("cpus=0,^0", Backend::Nspawn, "cpus: no CPU is left"),
        ("network=bridge", Backend::Nspawn, "network: 'bridge' is no network"),
        ("hostname=a_b", Backend::Nspawn, "hostname: 'a_b' is no hostname"),
        ("binfmt=x", Backend::Nspawn, "binfmt: 'x' is no registry"),
        ("image=''", Backend::Nspawn, "image = \"\" has no value"),
        ("disk=['/a,vhd,xvdb']", Backend::Qemu, "disk: a disk of the format vhd cannot be had on QEMU"),
    ] {
        let said = says(word, backend);
        assert!(said.starts_with(&format!("'{word}': ")) && said.contains(want), "{word}: {said}");
    }
}

#[test]
fn sets_of_cpus() {
    for (text, want) in
        [("all", None), ("2", Some("2")), ("0-3", Some("0-3")), ("3,1,2", Some("1-3")), ("^1,0-1", Some("0-1"))]
    {
        let said = described(&config(&[&format!("cpus={text}")]), Backend::Nspawn).unwrap();
        assert_eq!(said.cpus.as_deref(), want, "{text}");
    }
}

#[test]
fn disks_have_names_of_their_own() {
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(apart(&texts(&["/a,raw,xvdb", "/b,raw,xvdc"]), true), Ok(()));
    assert_eq!(apart(&texts(&["/a,raw,xvda"]), false), Ok(()));
    assert!(apart(&texts(&["/a,raw,xvda"]), true).unwrap_err().contains("xvdb"));
    assert!(apart(&texts(&["/a,raw,xvdb", "/b,raw,sdb"]), true).unwrap_err().contains("two disks"));
}
