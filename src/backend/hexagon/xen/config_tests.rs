//! Golden texts, and what is refused. What a newcomer would get wrong: that the texts are right is xl's own word; the compat ring has it parse
//! the same machines.

use std::path::PathBuf;

use super::*;

fn machine() -> Machine {
    Machine {
        name: "web-1".into(),
        uuid: "e1823450-8e56-4a72-966b-e468ebf4737e".into(),
        arch: "arm64".into(),
        memory: 128 << 20,
        max_memory: None,
        vcpus: 1,
        max_vcpus: None,
        boot: Boot::Kernel { kernel: "/g/vmlinuz".into(), ramdisk: None, cmdline: "console=hvc0".into() },
        disks: Vec::new(),
        nics: Vec::new(),
    }
}

fn a_disk(path: &str) -> Disk {
    Disk {
        source: Some(path.into()),
        block: false,
        format: Format::Raw,
        base: None,
        vdev: "xvda".into(),
        read_only: false,
        cdrom: false,
    }
}

fn bridged(bridge: &str, name: Option<&str>) -> Nic {
    let link = Link::Bridge { bridge: bridge.into(), name: name.map(str::to_owned) };
    Nic { mac: [0, 0x16, 0x3e, 0, 0, 0xa1], link }
}

const HEAD: &str = "# Written by pronto for each run of the domain, which itself decides what follows the run's end.\n";
const ENDS: &str =
    "on_poweroff = \"preserve\"\non_reboot = \"preserve\"\non_crash = \"preserve\"\non_watchdog = \"preserve\"\n";

fn golden(machine: &Machine, kind: Kind, body: &str) {
    assert_eq!(text(machine, kind).unwrap(), format!("{HEAD}{body}{ENDS}"));
}

#[test]
fn the_least() {
    golden(
        &machine(),
        Kind::Pvh,
        r#"name = "web-1"
uuid = "e1823450-8e56-4a72-966b-e468ebf4737e"
type = "pvh"
memory = 128
vcpus = 1
kernel = "/g/vmlinuz"
cmdline = "console=hvc0"
"#,
    );
}

#[test]
fn everything() {
    let mut m = machine();
    (m.memory, m.max_memory) = ((128 << 20) + 1, Some(256 << 20));
    (m.vcpus, m.max_vcpus) = (2, Some(4));
    m.boot = Boot::Kernel {
        kernel: "/g/a kernel".into(),
        ramdisk: Some("/g/initrd".into()),
        cmdline: r#"root=/dev/xvda x="a b" y='c' z=\d #no; [1,2]"#.into(),
    };
    let qcow2 = Disk { format: Format::Qcow2, vdev: "xvdb1".into(), read_only: true, ..a_disk("/d/x,y=z: ,") };
    let drive = Disk { source: None, vdev: "hdc".into(), cdrom: true, ..a_disk("") };
    let cd = Disk { vdev: "hdd".into(), cdrom: true, ..a_disk("/d/cd.iso") };
    m.disks = vec![a_disk("/d/root.img"), qcow2, cd, drive];
    m.nics = vec![bridged("xenbr0", None), bridged("xenbr1", Some("web-1.0"))];
    golden(
        &m,
        Kind::Pv,
        r##"name = "web-1"
uuid = "e1823450-8e56-4a72-966b-e468ebf4737e"
type = "pv"
memory = 129
maxmem = 256
vcpus = 2
maxvcpus = 4
kernel = "/g/a kernel"
ramdisk = "/g/initrd"
cmdline = "root=/dev/xvda x=\"a b\" y='c' z=\\d #no; [1,2]"
disk = [
    "format=raw,vdev=xvda,access=rw,target=/d/root.img",
    "format=qcow2,vdev=xvdb1,access=ro,target=/d/x,y=z: ,,",
    "format=raw,vdev=hdd,access=ro,devtype=cdrom,target=/d/cd.iso",
    "vdev=hdc,access=ro,devtype=cdrom",
]
vif = [
    "mac=00:16:3e:00:00:a1,bridge=xenbr0",
    "mac=00:16:3e:00:00:a1,bridge=xenbr1,vifname=web-1.0",
]
"##,
    );
}

#[test]
fn what_starts_it() {
    let line = |boot: Boot, kind| {
        let mut m = machine();
        (m.boot, m.disks) = (boot, vec![a_disk("/d")]);
        text(&m, kind).map(|t| t.lines().skip(6).take_while(|l| !l.starts_with("disk")).collect::<String>())
    };
    let firmware = |variables: Option<&str>| Boot::Firmware {
        code: "/f/XEN_EFI.fd".into(),
        variables: variables.map(PathBuf::from),
    };
    assert_eq!(line(firmware(None), Kind::Pvh).unwrap(), r#"kernel = "/f/XEN_EFI.fd""#);
    assert_eq!(line(Boot::Itself, Kind::Pv).unwrap(), r#"bootloader = "pygrub""#);
    assert_eq!(line(Boot::Itself, Kind::Pvh).unwrap(), r#"bootloader = "pygrub""#);
    assert!(line(firmware(None), Kind::Pv).unwrap_err().to_string().contains("use type pvh"));
    assert!(line(firmware(Some("/v")), Kind::Pvh).unwrap_err().to_string().contains("keeps variables"));
}

/// What is refused, and what the refusal names.
#[test]
fn refusals() {
    type Change = fn(&mut Machine);
    let table: &[(Change, &str)] = &[
        (|m| m.name = "17".into(), "\"17\": xl takes a number for a domid"),
        (|m| m.name = String::new(), "\"\": it is empty"),
        (|m| m.name = "a/b".into(), "slash"),
        (|m| m.name = "-a".into(), "begin with a dash"),
        (|m| m.name = "a\nb".into(), "control character"),
        (|m| m.uuid = "e18234508e564a72966be468ebf4737e".into(), "five groups"),
        (|m| m.memory = 0, "memory, in bytes, must be at least 1, not 0"),
        (|m| m.max_memory = Some(64 << 20), "the most memory, in MiB, must be at least 128, not 64"),
        (|m| m.vcpus = 0, "the number of CPUs must be at least 1, not 0"),
        (|m| (m.vcpus, m.max_vcpus) = (3, Some(2)), "the most CPUs must be at least 3, not 2"),
        (|m| m.boot = Boot::Itself, "give a disk"),
        (|m| m.boot = Boot::Kernel { kernel: "k".into(), ramdisk: None, cmdline: String::new() }, "begin with a slash"),
        (|m| m.boot = Boot::Kernel { kernel: "/k".into(), ramdisk: None, cmdline: "a\0".into() }, "control character"),
        (|m| m.disks = vec![Disk { vdev: "vda".into(), ..a_disk("/d") }], "\"vda\": disks are called xvda"),
        (|m| m.disks = vec![a_disk("d.img")], "begin with a slash"),
        (|m| m.disks = vec![a_disk("/d\n")], "control character"),
        (|m| m.disks = vec![Disk { source: None, ..a_disk("") }], "no empty disks"),
        (|m| m.disks = vec![a_disk("/d"), a_disk("/e")], "two disks are called xvda"),
        (|m| m.nics = vec![bridged("a,b", None)], "\"a,b\""),
        (|m| m.nics = vec![bridged("", None)], "1 to 15 characters"),
        (|m| m.nics = vec![bridged("br", Some("a-name-that-is-too-long"))], "1 to 15 characters"),
        (|m| m.nics = vec![Nic { mac: [2; 6], link: Link::User { publish: Vec::new() } }], "connect them to a bridge"),
    ];
    for (change, want) in table {
        let mut m = machine();
        change(&mut m);
        let error = text(&m, Kind::Pvh).unwrap_err().to_string();
        assert!(error.contains(want), "{error}\nwanted: {want}");
    }
}

#[test]
fn paths_of_other_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let mut m = machine();
    m.disks = vec![Disk { source: Some(std::ffi::OsStr::from_bytes(b"/d/\xff").into()), ..a_disk("") }];
    assert!(text(&m, Kind::Pvh).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn names_of_disks() {
    for good in ["xvda", "xvdz", "xvdaa", "xvda15", "hda", "hdc", "sdb3", "d0", "d536p37"] {
        assert!(is_vdev(good), "{good}");
    }
    for bad in ["", "xvd", "vda", "xvdA", "xvda,x", "xvda12345", "d", "dp1", "d1p", "disk", "sdabcd", "xvda1b"] {
        assert!(!is_vdev(bad), "{bad}");
    }
}
