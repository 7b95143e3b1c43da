//! What keys say of a guest, and what is said when they say nothing sensible.

use std::collections::BTreeSet;

use super::super::affinity::CpuSet;
use super::super::{Accelerator, BackendChoice, Error, Event, Firmware, GuestType, Reaction};
use super::{one_line, read};
use crate::domain::Accel;

#[test]
fn memory_is_mebibytes() {
    for (text, mebibytes) in
        [("512", 512), ("'512'", 512), ("0x10", 16), ("010", 8), ("'2g'", 2048), ("\"1024k\"", 1), ("'512M'", 512)]
    {
        assert_eq!(read(&format!("memory = {text}")).memory().unwrap(), Some(mebibytes << 20), "{text}");
    }
    assert_eq!(read("").memory().unwrap(), None);
}

#[test]
fn every_wrong_value_is_told_with_its_line() {
    for (text, said) in [
        ("memory = 'lots'", "1:10: memory: expected a size, as 512 (MiB) or \"2g\", found 'lots'"),
        ("\nmemory = 0", "2:10: memory: expected 1 to 1099511627776, found 0"),
        ("memory = '0k'", "1:10: memory: a domain needs memory"),
        ("memory = '-5'", "1:10: memory: expected 1 to 1099511627776, found -5"),
        ("memory = [ 1 ]", "1:10: memory: expected one value, found a list"),
        ("memory = 512\nmaxmem = 256", "2:10: maxmem (256) is less than memory (512)"),
        ("vcpus = 0", "1:9: vcpus: expected 1 to 4096, found 0"),
        ("vcpus = 'two'", "1:9: vcpus: expected a number, found 'two'"),
        ("vcpus = 12ab", "1:9: vcpus: expected a number, found '12ab'"),
        ("vcpus = 99999999999999999999", "1:9: vcpus: expected a number, found '99999999999999999999'"),
        ("vcpus = 4; maxvcpus = 2", "1:23: maxvcpus (2) is less than vcpus (4)"),
        ("name = ''", "1:8: name = \"\" has no value; leave name out"),
        (
            "name = 'bad name'",
            "1:8: name: 'bad name' cannot be a domain's name: letters, digits, '_', '.', '+' and '-' only, a letter or digit first",
        ),
        ("uuid = '6ba7b810'", "1:8: uuid: expected a UUID, as 6ba7b810-9dad-11d1-80b4-00c04fd430c8, found '6ba7b810'"),
        ("type = 'kvm'", "1:8: type: expected one of pv, pvh, hvm, found 'kvm'"),
        ("type = ''", "1:8: type: expected one of pv, pvh, hvm, found ''"),
        ("type = 'pv'\nbuilder = 'hvm'", "2:11: builder and type say different things; leave builder out"),
        (
            "on_crash = 'explode'",
            "1:12: on_crash: expected one of destroy, restart, rename-restart, preserve, coredump-destroy, coredump-restart, soft-reset, found 'explode'",
        ),
        ("cpus = 'a'", "1:8: cpus: expected CPUs, as 2, 0-3, ^1, all or nodes:0-1, found 'a'"),
        ("cpus = [ '0',\n '3-1' ]", "2:2: cpus: expected CPUs, as 2, 0-3, ^1, all or nodes:0-1, found '3-1'"),
        ("cpus = '^all'", "1:8: cpus: '^' and 'all' do not go together"),
        ("cpus_soft = ','", "1:13: cpus_soft: expected CPUs, as \"all\" or \"0-3,^1\", found nothing"),
        ("boot = 'cdx'", "1:8: boot: expected some of c (disk), d (CD), n (network), found 'cdx'"),
        ("bios = 'award'", "1:8: bios: expected one of rombios, seabios, ovmf, found 'award'"),
        ("kernel = [ 'x' ]", "1:10: kernel: expected one value, found a list"),
        ("disk = 'a,raw,xvda'", "1:8: disk: expected a list, found 'a,raw,xvda'; write disk = [ \"a,raw,xvda\" ]"),
        ("disk = [ [ 'a' ] ]", "1:10: disk: expected a text in this list, found a list"),
        (
            "disk = [ 'a,raw,xvda',\n  'b,raw' ]",
            "2:3: disk: no vdev: expected a name for the disk, as xvda (in 'b,raw')",
        ),
        ("vif = [ 'mac=1' ]", "1:9: vif: mac: expected an address, as 00:16:3e:12:34:56, found '1'"),
        ("backend = 'lxc'", "1:11: backend: expected one of auto, kaxon, nspawn, hexagon, qemu, xen, found 'lxc'"),
        ("accel = 'hax'", "1:9: accel: expected one of kvm, tcg, off, tools, build, found 'hax'"),
        ("hap = 'yes'", "1:7: hap: expected a number, found 'yes'"),
        ("userns = 'maybe'", "1:10: userns: expected 1 or 0, found 'maybe'"),
        ("videoram = 'x'", "1:12: videoram: expected a number, found 'x'"),
        ("pci = '01:00.0'", "1:7: pci: expected a list, found '01:00.0'; write pci = [ \"01:00.0\" ]"),
        ("pool = []", "1:8: pool: expected one value, found a list"),
        ("on_reboot += [ 'x' ]", "1:14: on_reboot: expected one value, found a list"),
    ] {
        assert_eq!(one_line(&read(text).check().expect_err(text)), format!("web.cfg:{said}"), "{text}");
    }
    let mut config = read("");
    config.add_word(b"memory=lots").unwrap();
    assert_eq!(
        one_line(&config.check().unwrap_err()),
        "'memory=lots': memory: expected a size, as 512 (MiB) or \"2g\", found 'lots'"
    );
}

#[test]
fn numbers_and_truth_are_as_in_xl() {
    for (text, number) in [
        ("10", 10),
        ("010", 8),
        ("0x1f", 31),
        ("0", 0),
        ("'-3600'", -3600),
        ("' +7'", 7),
        ("'0X1F'", 31),
        ("9223372036854775807", i64::MAX),
    ] {
        assert_eq!(read(&format!("a = {text}")).number("a").unwrap(), Some(number), "{text}");
    }
    for bad in ["08", "0x", "'1 '", "''", "'1k'", "9223372036854775808", "'--1'", "'+'", "1e5"] {
        assert!(read(&format!("a = {bad}")).number("a").is_err(), "{bad}");
    }
    for (text, truth) in [("0", false), ("1", true), ("2", true), ("'0'", false), ("'yes'", true), ("'false'", false)] {
        assert_eq!(read(&format!("a = {text}")).truth("a").unwrap(), Some(truth), "{text}");
    }
    assert_eq!(read("b = 1").truth("a").unwrap(), None);
    assert_eq!(read("a = 5").number_in("a", 5..=5).unwrap(), Some(5));
    assert!(read("a = 6").number_in("a", 5..=5).is_err());
}

#[test]
fn words_that_choose() {
    for (text, kind) in [
        ("type='pv'", GuestType::Pv),
        ("type='pvh'", GuestType::Pvh),
        ("builder='generic'", GuestType::Pv),
        ("type='hvm'; builder='hvm'", GuestType::Hvm),
    ] {
        assert_eq!(read(text).guest_type().unwrap(), Some(kind), "{text}");
    }
    for (text, firmware) in [
        ("firmware='bios'", Firmware::Bios),
        ("firmware='uefi'", Firmware::Uefi),
        ("firmware='ovmf'", Firmware::Uefi),
        ("firmware='seabios'", Firmware::SeaBios),
        ("firmware='rombios'", Firmware::RomBios),
        ("firmware='pvgrub32'", Firmware::PvGrub32),
        ("firmware='pvgrub64'", Firmware::PvGrub64),
        ("firmware='/usr/share/OVMF.fd'", Firmware::File("/usr/share/OVMF.fd".into())),
        ("bios='ovmf'", Firmware::Uefi),
    ] {
        assert_eq!(read(text).firmware().unwrap(), Some(firmware), "{text}");
    }
    for (word, backend) in [
        ("auto", BackendChoice::Auto),
        ("nspawn", BackendChoice::Kaxon),
        ("hexagon", BackendChoice::Hexagon),
        ("qemu", BackendChoice::Qemu),
        ("xen", BackendChoice::Xen),
    ] {
        assert_eq!(read(&format!("backend='{word}'")).backend().unwrap(), Some(backend), "{word}");
    }
    for (word, accel) in [
        ("kvm", Accelerator::Kvm),
        ("tcg", Accelerator::Tcg),
        ("off", Accelerator::Native(Accel::Off)),
        ("build", Accelerator::Native(Accel::Build)),
    ] {
        assert_eq!(read(&format!("accel='{word}'")).accel().unwrap(), Some(accel), "{word}");
    }
    for event in Event::ALL {
        for word in
            ["destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "soft-reset"]
        {
            let reaction = read(&format!("{} = '{word}'", event.key())).reaction(event).unwrap().unwrap();
            assert_eq!(reaction.word(), word);
        }
    }
    assert_eq!(Event::Reboot.default_reaction(), Reaction::Restart);
    assert_eq!(Event::Crash.default_reaction(), Reaction::Destroy);
}

#[test]
fn the_kernels_words() {
    for (text, words) in [
        ("", None),
        ("cmdline='a'; root='b'; extra='c'", Some("a")),
        ("root='/dev/xvda1 ro'; extra='quiet'", Some("root=/dev/xvda1 ro quiet")),
        ("root='x'", Some("root=x")),
        ("extra='quiet'; extra += ' panic=1'", Some("quiet panic=1")),
    ] {
        assert_eq!(read(text).kernel_words().unwrap().as_deref(), words, "{text}");
    }
    assert_eq!(read("bootloader_args = '-q  --offset=1'").bootloader_args().unwrap(), ["-q", "--offset=1"]);
    assert_eq!(read("bootloader_args = [ '-q', 'a b' ]").bootloader_args().unwrap(), ["-q", "a b"]);
    assert_eq!(read("serial = 'pty'").serial().unwrap(), ["pty"]);
    assert!(read("").serial().unwrap().is_empty());
}

#[test]
fn sets_of_cpus() {
    let host: BTreeSet<u32> = (0..16).collect();
    let node = |n: u32| (n < 4).then(|| (n * 4..n * 4 + 4).collect());
    let resolved = |text: &str| CpuSet::parse(text).and_then(|set| set.resolve(&host, node));
    for (text, want) in [
        ("0-3,5,^1", &[0, 2, 3, 5][..]),
        ("all,^7", &[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]),
        ("nodes:0-3,^node:2", &[0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]),
        ("1,node:1,^6", &[1, 4, 5, 7]),
        ("^1,0-1", &[0, 1]),
        ("2,,3,99", &[2, 3]),
        ("all,^5-15", &[0, 1, 2, 3, 4]),
        ("nodes:all,^1-15", &[0]),
    ] {
        assert_eq!(resolved(text), Ok(want.iter().copied().collect()), "{text}");
    }
    for bad in ["", "a", "1-", "-1", "3-1", "0,^0", "99", "node:9", "^all", "0-9999999", "+1", "1 2", "nodes:", "0x1"] {
        assert!(resolved(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_message_is_one_line_whatever_stands_there() {
    let nasty = "a\\n\u{1b}[2J\u{202e}\u{2028}".repeat(40);
    let text = format!(
        "name = '{nasty}'\ntype = '{nasty}'\ndisk = [ '{nasty}' ]\nvif = [ 'mac={nasty}' ]\nuuid = '{nasty}'\ncpus = '{nasty}'"
    );
    let config = read(&text);
    let list = read(&format!("disk = '{nasty}'"));
    let errors: [Option<Error>; 6] = [
        config.guest_type().err(),
        config.disks().err(),
        config.vifs().err(),
        config.uuid().err(),
        config.cpus().err(),
        list.disks().err(),
    ];
    for error in errors {
        let said = one_line(&error.expect("it is refused"));
        assert!(said.chars().count() < 2000 && !said.contains(['\u{202e}', '\u{2028}']), "{said}");
    }
}
