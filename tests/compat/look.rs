//! What xl prints on a host without guests. What a newcomer would get wrong: three forms of `list` must say the same of each domain, since pronto
//! joins them.

use ::pronto::backend::hexagon::xen::{details, output};

use crate::host::Host;
use crate::machine::{Record, record};

fn get(host: Host, name: &str) -> Record {
    record(host, "look", name).ok()
}

pub fn lists_agree(host: Host) {
    let rows = output::list(&get(host, "list").out).unwrap();
    assert_eq!(rows.len(), 1);
    let zero = &rows[0];
    assert_eq!((zero.name.as_deref(), zero.domid, zero.memory, zero.vcpus), (Some("Domain-0"), 0, 384, 1));
    assert!(zero.state.running && zero.seconds > 0.0, "{zero:?}");
    assert_eq!(output::list(&get(host, "list-0").out).unwrap()[0].name.as_deref(), Some("Domain-0"));
    let verbose = output::list_verbose(&get(host, "list-v").out).unwrap();
    let uuid = "00000000-0000-0000-0000-000000000000";
    assert_eq!((verbose.len(), verbose[0].domid, verbose[0].uuid.as_deref()), (1, 0, Some(uuid)));
    let details = details::list(&get(host, "list-l").out).unwrap();
    assert_eq!((details.len(), details[0].domid, details[0].name.as_deref()), (1, Some(0), Some("Domain-0")));
    assert_eq!(details[0].max_memory, 384 << 10);
    let vms = output::vm_list(&get(host, "vm-list").out).unwrap();
    assert_eq!(vms, [(uuid.to_owned(), 0, Some("Domain-0".to_owned()))]);
    assert_eq!(output::domid(&get(host, "domid-0").out), Ok(0));
    assert_eq!(output::domname(&get(host, "domname-0").out).unwrap(), "Domain-0");
}

pub fn the_host_is_described(host: Host) {
    let info = output::Info::read(&get(host, "info").out).unwrap();
    assert_eq!((info.get("host"), info.get("xen_version").map(|v| &v[..5])), (Some("dom0"), Some("4.17.")));
    assert!(info.architectures().contains(&host.arch), "{:?}", info.get("xen_caps"));
    assert!(info.has_hvm(), "{:?}", info.get("virt_caps"));
    let (total, free) = (info.number("total_memory").unwrap(), info.number("free_memory").unwrap());
    assert!(free > 300 && total > free && total <= 1024, "{free} of {total}");
    assert_eq!(info.number("nr_cpus"), Some(1));
    assert_eq!(get(host, "info-one").text().trim().parse::<u64>().map_err(|e| e.to_string()), Ok(free));
}

pub fn cpus_and_uptime(host: Host) {
    let cpus = output::vcpu_list(&get(host, "vcpu-list").out).unwrap();
    let cpu = &cpus[0];
    assert_eq!((cpus.len(), cpu.name.as_deref(), cpu.domid, cpu.vcpu), (1, Some("Domain-0"), 0, 0));
    assert_eq!((cpu.cpu, cpu.running, cpu.hard.as_str(), cpu.soft.as_str()), (Some(0), true, "all", "all"));
    let up = output::uptime(&get(host, "uptime").out).unwrap();
    assert_eq!((up.len(), up[0].0.as_deref(), up[0].1), (1, Some("Domain-0"), 0));
    assert!((1..600).contains(&up[0].2.as_secs()), "{up:?}");
}

pub fn tables_of_devices(host: Host) {
    assert_eq!(output::block_list(&get(host, "block-list-0").out), Ok(Vec::new()));
    assert_eq!(output::network_list(&get(host, "network-list-0").out), Ok(Vec::new()));
}
