//! Disks and network interfaces. The cases are those that xl's own checks of its readers ask for, and those of its manuals.

use super::super::Rate;
use super::super::disk::{BackendType, DiskFormat, DiskSpec};
use super::super::drive::{Bus, Drive};
use super::super::vif::{VifSpec, VifType};

fn disk(target: Option<&str>, format: DiskFormat, vdev: &str) -> DiskSpec {
    DiskSpec {
        target: target.map(str::to_owned),
        format,
        vdev: vdev.into(),
        read_only: false,
        cdrom: false,
        backend: None,
        backendtype: None,
        script: None,
        virtio: None,
        direct_io_safe: false,
        discard: None,
        trusted: None,
        grant_usage: None,
        colo: Vec::new(),
    }
}

fn cd(target: Option<&str>, vdev: &str) -> DiskSpec {
    let format = if target.is_some() { DiskFormat::Raw } else { DiskFormat::Empty };
    DiskSpec { read_only: true, cdrom: true, ..disk(target, format, vdev) }
}

#[test]
fn disks() {
    let volume = disk(Some("/dev/vg/guest-volume"), DiskFormat::Raw, "hda");
    let iscsi = "iqn.2001-05.com.example:0-8a0906-23fe93404-host";
    let cases: Vec<(Vec<&str>, DiskSpec)> = vec![
        (vec!["/dev/vg/guest-volume,,hda"], volume.clone()),
        (vec!["/dev/vg/guest-volume,raw,hda,rw"], volume.clone()),
        (vec!["format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume"], volume.clone()),
        (vec!["format=raw", "vdev=hda", "access=rw", "target=/dev/vg/guest-volume"], volume.clone()),
        (vec!["raw:/dev/vg/guest-volume,hda,w"], volume.clone()),
        (vec!["phy:/dev/vg/guest-volume,hda,w"], volume.clone()),
        (vec!["tap:aio:/dev/vg/guest-volume,hda,w"], volume.clone()),
        (vec!["/dev/vg/guest-volume,raw,ioemu:hda,w"], volume.clone()),
        (vec!["/root/image.iso,,hdc,cdrom"], cd(Some("/root/image.iso"), "hdc")),
        (vec!["/root/image.iso,,hdc,,cdrom"], cd(Some("/root/image.iso"), "hdc")),
        (vec!["/root/image.iso,raw,hdc,devtype=cdrom"], cd(Some("/root/image.iso"), "hdc")),
        (
            vec!["format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso"],
            cd(Some("/root/image.iso"), "hdc"),
        ),
        (vec!["raw:/root/image.iso,hdc:cdrom,ro"], cd(Some("/root/image.iso"), "hdc")),
        (vec!["file:/root/image.iso,hdc:cdrom,r"], cd(Some("/root/image.iso"), "hdc")),
        (vec!["devtype=cdrom,,,hdc"], cd(None, "hdc")),
        (vec![",,hdc:cdrom,r"], cd(None, "hdc")),
        (vec![",hdc:cdrom,r"], cd(None, "hdc")),
        (vec!["vdev=hdc,access=r,devtype=cdrom,target="], cd(None, "hdc")),
        (vec![",empty,hdc:cdrom,r"], cd(None, "hdc")),
        (vec!["vdev=hdc,access=r,devtype=cdrom,format=empty"], cd(None, "hdc")),
        (
            vec!["backendtype=phy,vdev=xvdb,access=w,target=/dev/vg/guest-volume"],
            DiskSpec { backendtype: Some(BackendType::Phy), vdev: "xvdb".into(), ..volume.clone() },
        ),
        (
            vec!["iscsi:iqn.2001-05.com.example:0-8a0906-23fe93404-host,xvda,w"],
            DiskSpec { script: Some("block-iscsi".into()), ..disk(Some(iscsi), DiskFormat::Raw, "xvda") },
        ),
        (
            vec!["drbd:app01,hda,w"],
            DiskSpec { script: Some("block-drbd".into()), ..disk(Some("app01"), DiskFormat::Raw, "hda") },
        ),
        (
            vec!["discard", "vdev=hda", "target=/some/image.raw"],
            DiskSpec { discard: Some(true), ..disk(Some("/some/image.raw"), DiskFormat::Raw, "hda") },
        ),
        (
            vec!["cdrom", "no-discard", "vdev=hda", "target=/x.iso"],
            DiskSpec { discard: Some(false), ..cd(Some("/x.iso"), "hda") },
        ),
        (
            vec!["untrusted,vdev=hda,target=/x"],
            DiskSpec { trusted: Some(false), ..disk(Some("/x"), DiskFormat::Raw, "hda") },
        ),
        (vec!["tap:qcow2:/x,xvda,r"], DiskSpec { read_only: true, ..disk(Some("/x"), DiskFormat::Qcow2, "xvda") }),
        (vec![",qcow2,xvda,,target=/a,b=c:d, e "], disk(Some("/a,b=c:d, e "), DiskFormat::Qcow2, "xvda")),
        (vec!["vdev=xvda,target=/ends with a comma,,"], disk(Some("/ends with a comma,"), DiskFormat::Raw, "xvda")),
        (
            vec!["/x,vhd,vda,specification=virtio,grant_usage=1,backend=storage,direct-io-safe,colo,colo-host=h"],
            DiskSpec {
                virtio: Some(true),
                grant_usage: Some(true),
                backend: Some("storage".into()),
                direct_io_safe: true,
                colo: vec!["colo".into(), "colo-host=h".into()],
                ..disk(Some("/x"), DiskFormat::Vhd, "vda")
            },
        ),
    ];
    for (words, want) in cases {
        let read = DiskSpec::parse(&words);
        assert_eq!(read.as_ref(), Ok(&want), "{words:?}");
        assert_eq!(DiskSpec::parse(&[&want.to_string()]), read, "{want}");
    }
}

#[test]
fn no_disks() {
    for (text, said) in [
        ("foo", "no vdev: expected a name for the disk, as xvda (in 'foo')"),
        ("", "no vdev: expected a name for the disk, as xvda (in '')"),
        (
            "/x,raw,xvda,rw,more",
            "'more' is one word too many after target, format, vdev and access (in '/x,raw,xvda,rw,more')",
        ),
        ("/x,rew,xvda", "format: expected one of raw, qcow, qcow2, vhd, qed, empty, found 'rew' (in '/x,rew,xvda')"),
        ("/x,raw,xvda,x", "access: expected one of r, ro, w, rw, found 'x' (in '/x,raw,xvda,x')"),
        ("/x,raw,", "no vdev: expected a name for the disk, as xvda (in '/x,raw,')"),
        (",raw,xvda", "no target: expected a file or block device, since it is no CD (in ',raw,xvda')"),
        ("vdev=xvda", "no target: expected a file or block device, since it is no CD (in 'vdev=xvda')"),
        ("/x,raw,sys", "vdev: expected a disk's name, as xvda, sdb, hdc or vda, found 'sys' (in '/x,raw,sys')"),
        ("/x,raw,xvda,vdev=xvdb", "vdev is said twice: 'xvda' and 'xvdb' (in '/x,raw,xvda,vdev=xvdb')"),
        (
            "raw:/x,xvda,w,format=qcow2",
            "format is said twice, the second time as 'qcow2' (in 'raw:/x,xvda,w,format=qcow2')",
        ),
        (
            "/x,raw,xvda,colo-host=a,colo-host=b",
            "colo-host is said twice: 'a' and 'b' (in '/x,raw,xvda,colo-host=a,colo-host=b')",
        ),
        ("/x,raw,xvda,target=/y", "target is said twice: '/x' and '/y' (in '/x,raw,xvda,target=/y')"),
        ("/x,raw,xvda,acess=r", "'acess' is no word of a disk: did you mean access? (in '/x,raw,xvda,acess=r')"),
        ("/a=b,raw,xvda", "'/a' has an = in it: write target= before it, at the end (in '/a=b,raw,xvda')"),
        (
            "http://x,raw,xvda",
            "'http:' is no prefix of a disk: write target= before what has a colon (in 'http://x,raw,xvda')",
        ),
        (
            "/x,raw,hdc:tape",
            "the type after the vdev: expected one of cdrom, disk, found 'tape' (in '/x,raw,hdc:tape')",
        ),
        ("/x,raw,xvda,devtype=tape", "devtype: expected cdrom or disk, found 'tape' (in '/x,raw,xvda,devtype=tape')"),
    ] {
        assert_eq!(DiskSpec::parse(&[text]).expect_err(text), said);
    }
}

#[test]
fn names_of_disks() {
    for (name, bus, disk, partition) in [
        ("xvda", Bus::Xen, 0, 0),
        ("xvdb2", Bus::Xen, 1, 2),
        ("xvdtq37", Bus::Xen, 536, 37),
        ("d0p0", Bus::Xen, 0, 0),
        ("d536p37", Bus::Xen, 536, 37),
        ("sdb3", Bus::Scsi, 1, 3),
        ("hdc2", Bus::Ide, 2, 2),
        ("vdz", Bus::Virtio, 25, 0),
        ("51712", Bus::Xen, 0, 0),
        ("0xca11", Bus::Xen, 1, 1),
        ("5632", Bus::Ide, 2, 0),
        ("2049", Bus::Scsi, 0, 1),
        ("268435456", Bus::Xen, 0, 0),
    ] {
        assert_eq!(Drive::parse(name), Some(Drive { bus, disk, partition }), "{name}");
    }
    for bad in [
        "", "xvd", "xvd1", "xvda0", "xvdA", "hde", "sdq", "xvdzzzzz", "xvda256", "hda64", "dp", "d0", "d0p", "d0p256",
        "0", "disk", "sda1x", "é",
    ] {
        assert_eq!(Drive::parse(bad), None, "{bad}");
    }
    for letters in ["a", "z", "aa", "zz", "aaa", "tq"] {
        assert_eq!(Drive::parse(&format!("xvd{letters}")).unwrap().letters(), letters);
    }
}

#[test]
fn interfaces() {
    let vif =
        VifSpec::parse("mac=00:16:3E:74:3d:76, model=rtl8139,bridge=xenbr0,,type=ioemu,ip=10.0.0.1 10.0.0.2").unwrap();
    assert_eq!(vif.mac, Some([0, 0x16, 0x3e, 0x74, 0x3d, 0x76]));
    assert_eq!(
        (vif.model.as_deref(), vif.bridge.as_deref(), vif.kind),
        (Some("rtl8139"), Some("xenbr0"), Some(VifType::Ioemu))
    );
    assert_eq!(vif.ip.as_deref(), Some("10.0.0.1 10.0.0.2"));
    assert_eq!(VifSpec::parse(""), Ok(VifSpec::default()));
    assert_eq!(VifSpec::parse(" , ,"), Ok(VifSpec::default()));

    let all = "mac=00:16:3e:00:00:01,bridge=b,gatewaydev=g,type=vif,model=m,vifname=v,script=/s,ip=1,backend=d,rate=1MB/s@20ms,devid=3,mtu=9000,vlan=10p/20,untrusted,forwarddev=f,colo_compare_out=x";
    let vif = VifSpec::parse(all).unwrap();
    assert_eq!(vif.to_string(), all);
    assert_eq!(vif.unknown, Vec::<String>::new());
    assert_eq!((vif.trusted, vif.devid, vif.mtu), (Some(false), Some(3), Some(9000)));
    assert_eq!(vif.limit(), Some(Rate { bytes: 20_000, interval: 20_000 }));
    assert_eq!(VifSpec::from_words(&all.split(',').collect::<Vec<_>>()), Ok(vif));
    assert_eq!(VifSpec::parse("netdev=eth0").unwrap().gatewaydev.as_deref(), Some("eth0"));
    assert_eq!(VifSpec::parse("mac=0-16-3e-0-0-1").unwrap().mac, Some([0, 0x16, 0x3e, 0, 0, 1]));

    let strange = VifSpec::parse("bridge=b,policy=x,foo").unwrap();
    assert_eq!(strange.unknown, ["policy=x", "foo"]);
    assert_eq!(strange.to_string(), "bridge=b,policy=x,foo");
    for (words, said) in [
        (&["foo"][..], "'foo' is no word of a network interface: the known ones are "),
        (&["brigde=b"], "'brigde=b' is no word of a network interface: did you mean bridge?"),
        (&["mac=00:16:3e:0:0"], "mac: expected an address, as 00:16:3e:12:34:56, found '00:16:3e:0:0'"),
        (&["mac=00:16:3e:0:0:100"], "mac: expected an address"),
        (&["mac=00:16:3e:0:0:+1"], "mac: expected an address"),
        (&["type=tap"], "type: expected vif or ioemu, found 'tap'"),
        (&["mtu=-1"], "mtu: expected a number, found '-1'"),
        (&["devid=x"], "devid: expected a number, found 'x'"),
        (&["devid="], "devid: expected a number, found ''"),
        (&["rate=fast"], "rate: expected a rate, as 250KB/s or 10Mb/s@20ms, found 'fast'"),
    ] {
        let error = VifSpec::from_words(words).unwrap_err();
        assert!(error.starts_with(said), "{words:?}: {error}");
    }
}

#[test]
fn rates() {
    for (texts, bytes, interval) in [
        (
            &["16000000b/s", "16000000b/s@50ms", "2000000B/s", "2000000B/s@50ms", "16Mb/s", "2MB/s@50ms", "2MB/s@50m"]
                [..],
            100_000,
            50_000,
        ),
        (&["16Kb/s", "2KB/s", "2KB/s@50ms"], 100, 50_000),
        (&["8Gb/s", "1GB/s@50ms"], 50_000_000, 50_000),
        (&["80Mb/s@1s", "10MB/s@1s", "10MB/s@1"], 10_000_000, 1_000_000),
        (&["1MB/s@20ms", "1MB/s@20000us"], 20_000, 20_000),
    ] {
        for text in texts {
            assert_eq!(Rate::parse(text), Ok(Rate { bytes, interval }), "{text}");
        }
    }
    for bad in [
        "foo",
        "10MB",
        "10MB/m",
        "10ZB/s",
        "10",
        "",
        "@",
        "4294967296b/s",
        "4294967296GB/s",
        "0B/s",
        "10Mb/s@foo",
        "10Mb/s@10h",
        "1B/s@4294967296us",
        "1B/s@4294968ms",
        "1B/s@4295s",
        "1B/s@0us",
        "4294967295GB/s@5us",
        "4296MB/s@4294s",
        "-1B/s",
        "1B/s@",
        "éB/s",
    ] {
        assert!(Rate::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn whole_disks_have_xens_numbers() {
    let number = |vdev| Drive::parse(vdev).map(Drive::number);
    assert_eq!(["xvda", "xvdb", "xvdp", "vda"].map(number), [51712, 51728, 51952, 51712].map(Some));
    assert_eq!(number("xvdq"), Some((1 << 28) | (16 << 8)));
    for vdev in ["xvda", "xvdz", "xvdaa"] {
        let drive = Drive::parse(vdev).unwrap();
        assert_eq!(Drive::numbered(drive.number()), Some(drive), "{vdev}");
    }
}
