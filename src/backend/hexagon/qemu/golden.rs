//! Golden words. What a newcomer would get wrong: these are not what looks right but what QEMU took; `tests/suite_qemu.rs` starts
//! machines with such words.

use std::path::PathBuf;

use super::parts::{Unfit, number};
use super::{Accel, Channel, Kind, Ports, Setup, argv, parts};
use crate::arch::Profiles;
use crate::backend::hexagon::{Base, Boot, Disk, Format, Link, Machine, Nic, Publish};

fn disk(vdev: &str) -> Disk {
    Disk {
        source: Some(format!("/disks/{vdev}").into()),
        block: false,
        format: Format::Raw,
        base: None,
        vdev: vdev.to_owned(),
        read_only: false,
        cdrom: false,
    }
}

fn machine(arch: &str) -> Machine {
    Machine {
        name: "demo".into(),
        uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".into(),
        arch: arch.into(),
        memory: 512 << 20,
        max_memory: None,
        vcpus: 2,
        max_vcpus: None,
        boot: Boot::Kernel {
            kernel: "/boot/vmlinuz".into(),
            ramdisk: Some("/boot/initrd.img".into()),
            cmdline: "root=/dev/vda rw, quiet".into(),
        },
        disks: vec![disk("xvda")],
        nics: vec![Nic { mac: [0, 0x16, 0x3e, 1, 2, 0xab], link: Link::User { publish: Vec::new() } }],
    }
}

fn setup(machine: &Machine) -> Setup {
    let kind = Kind::of(Profiles::embedded().find(&machine.arch).unwrap()).unwrap();
    Setup {
        program: format!("/usr/bin/qemu-system-{}", machine.arch).into(),
        kind,
        machine: format!("{}7.2", kind.family()),
        accel: Accel::Tcg,
        cpu: "max".into(),
        sandbox: true,
        ports: Ports { disks: 2, nics: 1 },
        incoming: false,
        throw_away: false,
        qmp: Channel::Connected(10),
        verbs: Some(Channel::Listening(12)),
        console: Channel::Listening(11),
        agent: Some(Channel::Path("/run/a,b".into())),
        files: Vec::new(),
        taps: Vec::new(),
    }
}

fn words(machine: &Machine, setup: &Setup) -> Result<Vec<String>, Unfit> {
    let launch = argv::launch(machine, Profiles::embedded().find(&machine.arch).unwrap(), setup)?;
    Ok(launch.words.into_iter().map(|w| w.into_string().unwrap()).collect())
}

#[test]
fn arm64() {
    let machine = machine("arm64");
    let expected = r#"/usr/bin/qemu-system-arm64
-nodefaults
-no-user-config
-display none
-name guest=demo
-uuid 6ba7b810-9dad-41d1-80b4-00c04fd430c8
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-action reboot=shutdown,shutdown=pause,panic=pause
-S
-machine virt-7.2,usb=off,dump-guest-core=off,gic-version=3
-accel tcg,thread=multi,tb-size=512
-cpu max
-smp cpus=2
-m size=524288k
-rtc base=utc
-kernel /boot/vmlinuz
-initrd /boot/initrd.img
-append root=/dev/vda rw, quiet
-boot strict=on,menu=off
-chardev socket,id=qmp,fd=10,server=off
-mon chardev=qmp,mode=control
-chardev socket,id=verbs,fd=12,server=on,wait=off
-mon chardev=verbs,mode=control
-chardev socket,id=console,fd=11,server=on,wait=off
-serial chardev:console
-chardev socket,id=agent,path=/run/a,,b,server=on,wait=off
-device virtio-serial-pci,id=channels,bus=pcie.0,addr=0x2
-device virtserialport,bus=channels.0,chardev=agent,id=agent0,name=org.qemu.guest_agent.0
-object rng-builtin,id=random
-device virtio-rng-pci,rng=random,bus=pcie.0,addr=0x3
-device virtio-balloon-pci,id=balloon,bus=pcie.0,addr=0x4
-device pvpanic-pci,bus=pcie.0,addr=0x5
-device pcie-root-port,id=port-disk0,bus=pcie.0,addr=0x8.0x0,multifunction=on,chassis=1,io-reserve=0
-device pcie-root-port,id=port-disk1,bus=pcie.0,addr=0x8.0x1,multifunction=on,chassis=2,io-reserve=0
-device pcie-root-port,id=port-nic0,bus=pcie.0,addr=0x10.0x0,multifunction=on,chassis=101,io-reserve=0
-blockdev {"driver":"raw","node-name":"disk-xvda","read-only":false,"discard":"unmap","cache":{"direct":false,"no-flush":false},"file":{"driver":"file","filename":"/disks/xvda","discard":"unmap"}}
-device virtio-blk-pci,id=xvda,bus=port-disk0,addr=0x0,drive=disk-xvda,serial=xvda,bootindex=1
-netdev user,id=net0
-device virtio-net-pci,id=nic0,bus=port-nic0,addr=0x0,netdev=net0,mac=00:16:3e:01:02:ab,romfile="#;
    let words = words(&machine, &setup(&machine)).unwrap();
    // An option and its value on one line.
    let text = words.join("\n").replace("\n-", "\u{0}").replace('\n', " ").replace('\u{0}', "\n-");
    assert_eq!(text, expected);
}

#[test]
fn a_pc_with_everything() {
    let mut machine = machine("amd64");
    machine.max_memory = Some(1 << 30);
    machine.max_vcpus = Some(4);
    machine.boot = Boot::Firmware { code: "/fw/CODE.fd".into(), variables: Some("/domain/VARS.fd".into()) };
    let base = Some(Base { source: "/images/a.qcow2".into(), format: Format::Qcow2 });
    machine.disks = vec![
        Disk { format: Format::Qcow2, base, ..disk("xvda") },
        Disk { block: true, read_only: true, ..disk("xvdb") },
        Disk { cdrom: true, source: None, ..disk("hdc") },
        Disk { cdrom: true, ..disk("hdd") },
    ];
    let to = |host, guest, udp, address| Publish { address, host, guest, udp };
    let here = Some("127.0.0.1".parse().unwrap());
    machine.nics[0].link = Link::User { publish: vec![to(2222, 22, false, here), to(53, 53, true, None)] };
    let bridge = Link::Bridge { bridge: "xenbr0".into(), name: None };
    machine.nics.push(Nic { mac: [2, 0, 0, 0, 0, 1], link: bridge });
    let mut setup = setup(&machine);
    setup.ports = Ports { disks: 2, nics: 2 };
    (setup.accel, setup.cpu, setup.sandbox) = (Accel::Kvm, "host".into(), false);
    (setup.throw_away, setup.agent) = (true, None);
    setup.taps = vec![None, Some(9)];
    let words = words(&machine, &setup).unwrap().join("\n");
    for line in [
        "\n-machine\npc-q35-7.2,usb=off,dump-guest-core=off,vmport=off,smm=off\n",
        "\n-accel\nkvm\n-cpu\nhost\n-smp\ncpus=2,maxcpus=4\n-m\nsize=1048576k\n",
        "\n-machine\npflash0=flash-code\n",
        r#"{"driver":"raw","node-name":"flash-variables","read-only":false,"file":{"driver":"file","filename":"/domain/VARS.fd"}}"#,
        r#"{"driver":"qcow2","node-name":"disk-xvda","read-only":false,"discard":"unmap","cache":{"direct":false,"no-flush":true},"file":{"driver":"file","filename":"/disks/xvda","discard":"unmap"},"backing":{"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"/images/a.qcow2"},"backing":null}}"#,
        r#"{"driver":"raw","node-name":"disk-xvdb","read-only":true,"cache":{"direct":false,"no-flush":false},"file":{"driver":"host_device","filename":"/disks/xvdb"}}"#,
        "\n-device\npvpanic\n",
        "\nide-cd,id=hdc,bus=ide.0,bootindex=3\n",
        "\nide-cd,id=hdd,bus=ide.1,drive=disk-hdd,bootindex=4\n",
        "\nuser,id=net0,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-:53\n",
        "\ntap,id=net1,fd=9\n",
    ] {
        assert!(words.contains(line), "{line}\nis not in\n{words}");
    }
    assert!(!words.contains("-sandbox") && !words.contains("virtserialport"), "{words}");
}

#[test]
fn a_file_that_names_another_never_has_its_way() {
    let node = parts::node(&Disk { format: Format::Qcow2, ..disk("vda") }, false, &[]).unwrap().unwrap();
    assert!(node["backing"].is_null() && node.as_object().unwrap().contains_key("backing"), "{node}");
}

#[test]
fn other_machines() {
    let all = Profiles::embedded();
    let armhf = machine("armhf");
    let armhf = words(&armhf, &setup(&armhf)).unwrap().join("\n");
    assert!(armhf.contains("virt-7.2,usb=off,dump-guest-core=off,highmem=off\n"), "{armhf}");
    let mut riscv = machine("riscv64");
    riscv.boot = Boot::Firmware { code: "/fw/u-boot".into(), variables: None };
    riscv.disks.push(Disk { cdrom: true, ..disk("hdc") });
    let mut setup = setup(&riscv);
    (setup.machine, setup.incoming) = ("virt".into(), true);
    let riscv = words(&riscv, &setup).unwrap().join("\n");
    for line in [
        "-S\n-incoming\ndefer\n-machine\nvirt,usb=off,dump-guest-core=off\n",
        "-bios\n/fw/u-boot\n",
        "virtio-scsi-pci,id=cds,bus=pcie.0,addr=0x6\n-device\nscsi-cd,id=hdc,bus=cds.0,scsi-id=0,drive=disk-hdc,bootindex=2",
    ] {
        assert!(riscv.contains(line), "{line}\nis not in\n{riscv}");
    }
    let error = Kind::of(all.find("armel").unwrap()).unwrap_err().to_string();
    assert!(error.contains("'versatilepb'"), "{error}");
}

#[test]
fn names_of_disks() {
    for (name, expected) in
        [("xvda", 0), ("vdb", 1), ("hdc", 2), ("sdz", 25), ("xvdaa", 26), ("xvda1", 0), ("d3", 3), ("d3p1", 3)]
    {
        assert_eq!(number(name), Ok(expected), "{name}");
    }
    for name in ["", "xvd", "xvd1", "fda", "xvdA", "xvdaaa", "d", "dx", "xvda,b"] {
        assert_eq!(number(name), Err(Unfit::Vdev(name.to_owned())), "{name}");
    }
}

#[test]
fn what_cannot_be() {
    use std::os::unix::ffi::OsStringExt;
    let with = |disks: Vec<Disk>| {
        let mut machine = machine("arm64");
        machine.disks = disks;
        let setup = setup(&machine);
        words(&machine, &setup).unwrap_err().to_string()
    };
    assert!(with(vec![disk("xvda"), disk("sda")]).starts_with("the disks 'xvda' and 'sda' have the same place"));
    assert_eq!(with(vec![disk("xvdz")]), "disks: at most 2 are possible");
    assert!(with(vec![Disk { source: None, ..disk("xvda") }]).contains("only a CD drive can be empty"));
    let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/x\xff".to_vec()));
    assert!(with(vec![Disk { source: Some(odd), ..disk("xvda") }]).contains("it is not UTF-8"));
    let cds = (0..17).map(|n| Disk { cdrom: true, ..disk(&format!("d{n}")) }).collect();
    assert_eq!(with(cds), "CD drives: at most 16 are possible");

    let mut machine = machine("arm64");
    machine.nics[0].link = Link::Bridge { bridge: "br0".into(), name: None };
    assert_eq!(words(&machine, &setup(&machine)).unwrap_err(), Unfit::NoTap(0));
    machine.vcpus = 200;
    assert!(words(&machine, &setup(&machine)).unwrap_err().to_string().contains("virt-7.2 has at most 123"));
}

#[test]
fn ports_have_room_for_more() {
    let mut machine = machine("arm64");
    assert_eq!(Ports::of(&machine), Ok(Ports { disks: 4, nics: 2 }));
    machine.disks = vec![disk("xvda"), disk("xvde"), Disk { cdrom: true, ..disk("hdz") }];
    assert_eq!(Ports::of(&machine).unwrap().disks, 8);
    machine.disks = vec![disk("xvdzz")];
    assert!(Ports::of(&machine).is_err());
    machine.disks.clear();
    machine.nics = vec![machine.nics[0].clone(); 17];
    assert!(Ports::of(&machine).is_err());
}
