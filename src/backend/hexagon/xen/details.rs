//! Reads the JSON of `xl list -l` and of `xl -N create`: what a domain was made of. Source: libxl_types.idl, as Xen 4.17 prints it.
//!
//! What a newcomer would get wrong: it holds no state (that is [`super::output::list`]'s); what has its default value is left out; truth is a
//! string (`"True"`) or a number; and the `domid` inside a configuration is always 4294967295, only the one beside it is true.

use serde_json::Value;

use super::output::Error;

/// What a domain was made of. Whatever is left out in the JSON is None, 0 or empty here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Its number; none in a dry run.
    pub domid: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Its identity; domain 0 has none.
    pub uuid: Option<String>,
    /// `pv`, `pvh` or `hvm`.
    pub kind: String,
    /// Memory that it should have, in KiB.
    pub memory: u64,
    /// The most memory that it may have, in KiB.
    pub max_memory: u64,
    /// How many CPUs it may have.
    pub max_vcpus: u64,
    /// How many of them are online at start.
    pub vcpus: u64,
    /// Its kernel.
    pub kernel: Option<String>,
    /// Its initial RAM disk.
    pub ramdisk: Option<String>,
    /// Its kernel's words.
    pub cmdline: Option<String>,
    /// What finds its kernel.
    pub bootloader: Option<String>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    pub nics: Vec<Nic>,
    /// What follows power-off, reboot, crash and the watchdog; none: the default (destroy; restart; destroy; destroy).
    pub ends: [Option<String>; 4],
}

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// The file or device.
    pub path: Option<String>,
    /// Its name in the domain.
    pub vdev: String,
    /// `raw`, `qcow2`, `empty`.
    pub format: Option<String>,
    /// Whether the domain may write to it.
    pub writable: bool,
    /// Whether it is a CD.
    pub cdrom: bool,
}

/// A network interface of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nic {
    /// Its address.
    pub mac: String,
    /// The host's bridge.
    pub bridge: Option<String>,
    /// Its name on the host.
    pub name: Option<String>,
}

/// Reads `xl list -l`. Errors: not such a list.
pub fn list(bytes: &[u8]) -> Result<Vec<Details>, Error> {
    let no_list = || Error::new("list -l", &String::from_utf8_lossy(bytes));
    let json: Value = serde_json::from_slice(bytes).map_err(|_| no_list())?;
    let each = json.as_array().ok_or_else(no_list)?.iter().map(|one| {
        let domid = one.get("domid")?.as_u64().and_then(|n| u32::try_from(n).ok())?;
        Some(Details { domid: Some(domid), ..configuration(one.get("config")?)? })
    });
    each.collect::<Option<Vec<_>>>().ok_or_else(no_list)
}

/// Reads what `xl -N create` prints. Errors: not such a description.
pub fn dry_run(bytes: &[u8]) -> Result<Details, Error> {
    let read = serde_json::from_slice(bytes).ok().and_then(|json| configuration(&json));
    read.ok_or_else(|| Error::new("-N create", &String::from_utf8_lossy(bytes)))
}

fn configuration(config: &Value) -> Option<Details> {
    let (create, build) = (config.get("c_info")?, config.get("b_info")?);
    let number = |key| build.get(key).and_then(Value::as_u64).unwrap_or_default();
    let many = |key| config.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // An older Xen keeps the kernel with the type.
    let inner = ["type.pv", "type.pvh", "type.hvm"].iter().find_map(|key| build.get(key));
    let built = |key| text(build, key).or_else(|| text(inner?, key));
    Some(Details {
        domid: None,
        name: text(create, "name"),
        uuid: text(create, "uuid"),
        kind: text(create, "type")?,
        memory: number("target_memkb"),
        max_memory: number("max_memkb"),
        max_vcpus: number("max_vcpus"),
        vcpus: build.get("avail_vcpus").and_then(Value::as_array).map_or(0, |list| list.len() as u64),
        kernel: built("kernel"),
        ramdisk: built("ramdisk"),
        cmdline: built("cmdline"),
        bootloader: built("bootloader"),
        disks: many("disks").iter().map(disk).collect(),
        nics: many("nics").iter().map(nic).collect(),
        ends: ["on_poweroff", "on_reboot", "on_crash", "on_watchdog"].map(|key| text(config, key)),
    })
}

fn disk(json: &Value) -> Disk {
    Disk {
        path: text(json, "pdev_path"),
        vdev: text(json, "vdev").unwrap_or_default(),
        format: text(json, "format"),
        writable: truth(json, "readwrite"),
        cdrom: truth(json, "is_cdrom"),
    }
}

fn nic(json: &Value) -> Nic {
    let mac = text(json, "mac").unwrap_or_default();
    Nic { mac, bridge: text(json, "bridge"), name: text(json, "ifname") }
}

fn text(json: &Value, key: &str) -> Option<String> {
    json.get(key)?.as_str().map(str::to_owned)
}

fn truth(json: &Value, key: &str) -> bool {
    match json.get(key) {
        Some(Value::Bool(value)) => *value,
        Some(Value::Number(value)) => value.as_i64() != Some(0),
        Some(Value::String(value)) => value == "True",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of three domains of a real list, shortened.
    const LIST: &str = r#"[
    {
        "domid": 0,
        "config": {
            "c_info": {
                "type": "pv",
                "name": "Domain-0"
            },
            "b_info": {
                "max_memkb": 524288,
                "target_memkb": 524287,
                "type.pv": {

                }
            }
        }
    },
    {
        "domid": 1,
        "config": {
            "c_info": {
                "type": "pv",
                "name": "full1",
                "domid": 4294967295,
                "uuid": "e1823450-8e56-4a72-966b-e468ebf4737e",
                "run_hotplug_scripts": "True"
            },
            "b_info": {
                "max_vcpus": 2,
                "avail_vcpus": [
                    0
                ],
                "max_memkb": 131072,
                "target_memkb": 102400,
                "kernel": "/guests/vmlinuz",
                "cmdline": "console=hvc0 quiet",
                "ramdisk": "/guests/initrd.gz",
                "type.pv": {

                }
            },
            "disks": [
                {
                    "pdev_path": "/run/d.img",
                    "vdev": "xvda",
                    "format": "raw",
                    "readwrite": 1,
                    "colo_restore_enable": "False"
                }
            ],
            "nics": [
                {
                    "devid": 0,
                    "mac": "00:16:3e:00:00:01",
                    "bridge": "xenbr0",
                    "nictype": "vif"
                }
            ],
            "on_reboot": "restart",
            "on_soft_reset": "soft_reset"
        }
    }
]

"#;

    #[test]
    fn a_real_list() {
        let all = list(LIST.as_bytes()).unwrap();
        let zero = Details {
            domid: Some(0),
            name: Some("Domain-0".into()),
            kind: "pv".into(),
            memory: 524_287,
            max_memory: 524_288,
            ..Details::default()
        };
        assert_eq!(all[0], zero);
        let one = &all[1];
        assert_eq!((one.domid, one.name.as_deref(), one.kind.as_str()), (Some(1), Some("full1"), "pv"));
        assert_eq!(one.uuid.as_deref(), Some("e1823450-8e56-4a72-966b-e468ebf4737e"));
        assert_eq!((one.memory, one.max_memory, one.vcpus, one.max_vcpus), (102_400, 131_072, 1, 2));
        assert_eq!(one.kernel.as_deref(), Some("/guests/vmlinuz"));
        assert_eq!(one.cmdline.as_deref(), Some("console=hvc0 quiet"));
        let disk = Disk {
            path: Some("/run/d.img".into()),
            vdev: "xvda".into(),
            format: Some("raw".into()),
            writable: true,
            cdrom: false,
        };
        assert_eq!(one.disks, [disk]);
        assert_eq!(one.nics[0].bridge.as_deref(), Some("xenbr0"));
        assert_eq!(one.ends, [None, Some("restart".to_owned()), None, None]);
    }

    #[test]
    fn what_is_no_list() {
        for bad in ["", "{}", "[1]", "[{}]", r#"[{"domid":-1,"config":{"c_info":{"type":"pv"},"b_info":{}}}]"#, "[["] {
            assert!(list(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(list(b"[]\n").unwrap().is_empty());
        assert!(dry_run(b"{\"c_info\": {}}").is_err());
        let deep = "[".repeat(100_000);
        assert!(list(deep.as_bytes()).is_err());
    }
}
