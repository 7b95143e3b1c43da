//! Whole files, in the shape of xl's own examples and of its manual.

use super::super::affinity::{Affinity, CpuSet};
use super::super::{Backend, BootDevice, Config, Event, Firmware, GuestType, Reaction};
use super::read;

const FILES: [(&str, &str); 4] = [
    ("pvlinux", include_str!("pvlinux.cfg")),
    ("pvhlinux", include_str!("pvhlinux.cfg")),
    ("hvm", include_str!("hvm.cfg")),
    ("full", include_str!("full.cfg")),
];

#[test]
fn read_and_written() {
    for (name, text) in FILES {
        let config = read(text);
        config.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = config.to_string();
        assert_eq!(Config::parse("written", written.as_bytes()).as_ref(), Ok(&config), "{name}: {written}");
        assert_eq!(read(&written).to_string(), written, "{name}");
    }
}

#[test]
fn the_small_ones_say() {
    for (name, text, kind, memory, vcpus) in [
        ("pvlinux", FILES[0].1, None, 128, 2),
        ("pvhlinux", FILES[1].1, Some(GuestType::Pvh), 512, 4),
        ("hvm", FILES[2].1, Some(GuestType::Hvm), 128, 2),
    ] {
        let config = read(text);
        assert_eq!(config.name().unwrap().unwrap().as_str(), format!("{name}.example"));
        assert_eq!(config.guest_type().unwrap(), kind, "{name}");
        assert_eq!((config.memory().unwrap(), config.maxmem().unwrap()), (Some(memory << 20), None), "{name}");
        assert_eq!((config.vcpus().unwrap(), config.maxvcpus().unwrap()), (Some(vcpus), None), "{name}");
        assert_eq!(config.vifs().unwrap(), [super::super::vif::VifSpec::default()], "{name}");
        let [disk] = &config.disks().unwrap()[..] else { panic!("{name}: one disk") };
        assert_eq!((disk.vdev.as_str(), disk.read_only, disk.cdrom), ("xvda", false, false), "{name}");
        assert_eq!(config.unheeded(Backend::Xen), [], "{name}");
    }
    assert_eq!(read(FILES[0].1).kernel_words().unwrap().as_deref(), Some("root=/dev/xvda1"));
}

#[test]
fn the_full_one_says() {
    let config = read(FILES[3].1);
    assert_eq!(config.guest_type().unwrap(), Some(GuestType::Hvm));
    assert_eq!(config.uuid().unwrap().as_deref(), Some("6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
    assert_eq!((config.memory().unwrap(), config.maxmem().unwrap()), (Some(2 << 30), Some(4 << 30)));
    assert_eq!((config.vcpus().unwrap(), config.maxvcpus().unwrap()), (Some(2), Some(4)));
    let sets = ["2", "3-8,^5"].map(|text| CpuSet::parse(text).unwrap());
    assert_eq!(config.cpus().unwrap(), Some(Affinity::Each(sets.into())));
    assert_eq!(config.cpus_soft().unwrap(), Some(Affinity::Same(CpuSet::parse("nodes:0-1,^nodes:1").unwrap())));
    let reactions = Event::ALL.map(|event| config.reaction(event).unwrap().unwrap());
    let want =
        [Reaction::Destroy, Reaction::Restart, Reaction::Preserve, Reaction::CoredumpRestart, Reaction::SoftReset];
    assert_eq!(reactions, want);
    assert_eq!(config.firmware().unwrap(), Some(Firmware::Uefi));
    assert_eq!(config.boot().unwrap(), [BootDevice::Cdrom, BootDevice::Disk, BootDevice::Network]);
    assert_eq!(config.serial().unwrap(), ["pty", "file:/var/log/full.log"]);
    assert_eq!(config.kernel_words().unwrap().as_deref(), Some("quiet"));
    let disks = config.disks().unwrap();
    let targets: Vec<_> = disks.iter().map(|disk| disk.target.as_deref()).collect();
    let want =
        [Some("/srv/full, with comma.qcow2"), Some("/srv/data.img"), None, Some("iqn.2001-05.com.example:target")];
    assert_eq!(targets, want);
    assert_eq!(config.vifs().unwrap()[1].vifname.as_deref(), Some("full-1"));
}

#[test]
fn what_is_not_done_is_named() {
    let named = |backend| read(FILES[3].1).unheeded(backend).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        named(Backend::Xen),
        [
            "web.cfg:20:1: 'bios' does nothing beside firmware",
            "web.cfg:24:1: 'root' does nothing beside cmdline",
            "web.cfg:33:9: vif: 'polcy=x' is no word of it, and does nothing",
            "web.cfg:43:1: 'vncviewer' does nothing any more",
            "web.cfg:44:1: 'onpoweroff' is no key, and does nothing; did you mean on_poweroff?",
        ]
    );
    let on_qemu = named(Backend::Qemu);
    for want in [
        "web.cfg:8:1: 'cpus' does nothing on QEMU",
        "web.cfg:30:5: disk: 'script' does nothing on QEMU",
        "web.cfg:32:9: vif: 'model' does nothing on QEMU",
        "web.cfg:33:9: vif: 'rate' does nothing on QEMU",
        "web.cfg:38:1: 'viridian' does nothing on QEMU",
        "web.cfg:43:1: 'vncviewer' does nothing any more",
    ] {
        assert!(on_qemu.iter().any(|said| said == want), "{want}: {on_qemu:#?}");
    }
    let on_kaxon = named(Backend::Kaxon);
    for want in ["web.cfg:26:1: 'disk' does nothing on kaxon", "web.cfg:2:1: 'builder' does nothing on kaxon"] {
        assert!(on_kaxon.iter().any(|said| said == want), "{want}: {on_kaxon:#?}");
    }
    for (backend, count) in [(Backend::Kaxon, 1), (Backend::Qemu, 1)] {
        let all = read("vif = [ '' ]; hap = 1; name = 'x'; hap = 0").unheeded(backend);
        let haps = all.iter().filter(|unheeded| unheeded.key == "'hap'").count();
        assert_eq!(haps, count, "once, whatever often it stands: {all:?}");
    }
}
