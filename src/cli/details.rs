//! Domains in the JSON shape of `xl list -l` and `xl create -n`. What a newcomer would get wrong: xl's readers look into
//! `config.c_info` and `config.b_info`; what xl does not have stands under `pronto`, where it can break nobody.

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::output;
use crate::domain::{Action, Backend, Spec};
use crate::ops::create::Create;
use crate::ops::list::Row;

/// One element of `list -l`: xl's `{"domid": …, "config": …}`, and all of ours under `pronto`.
pub fn of_row(row: &Row) -> Value {
    let kib = row.memory_mib * 1024;
    json!({
        "domid": row.domid,
        "config": {
            "c_info": { "type": kind(&row.backend), "name": row.name, "uuid": row.uuid },
            "b_info": { "max_vcpus": row.vcpus, "max_memkb": kib, "target_memkb": kib },
        },
        "pronto": row,
    })
}

/// Prints what `create` would make.
pub fn print_request(what: &Create) -> Result<(), Failure> {
    output::json(&of_request(what))
}

fn of_request(what: &Create) -> Value {
    let spec = &what.spec;
    let mut top = Map::new();
    let mut c_info = Map::from_iter([("type".to_owned(), json!(kind(spec.backend.name())))]);
    if let Some(name) = &what.name {
        c_info.insert("name".to_owned(), json!(name.as_str()));
    }
    top.insert("c_info".to_owned(), c_info.into());
    top.insert("b_info".to_owned(), b_info(spec));
    top.insert("on_poweroff".to_owned(), json!(named(spec.on_poweroff)));
    top.insert("on_reboot".to_owned(), json!(named(spec.on_reboot())));
    top.insert("on_crash".to_owned(), json!(named(spec.on_crash)));
    top.insert("pronto".to_owned(), ours(what));
    top.into()
}

/// Where xl says `pv`, `pvh` or `hvm`: guests that are none of these are called by what runs them.
fn kind(backend: &str) -> &str {
    if backend == Backend::Qemu.name() { "qemu" } else { "kaxon" }
}

/// An action as xl's JSON has it: with `_` where its configurations have `-`.
fn named(action: Action) -> &'static str {
    match action {
        Action::Destroy => "destroy",
        Action::Restart => "restart",
        Action::Preserve => "preserve",
        Action::CoredumpDestroy => "coredump_destroy",
        Action::CoredumpRestart => "coredump_restart",
    }
}

fn b_info(spec: &Spec) -> Value {
    let mut info = Map::new();
    if let Some(vcpus) = spec.full.max_vcpus.or(spec.vcpus) {
        info.insert("max_vcpus".to_owned(), json!(vcpus));
    }
    let full = &spec.full;
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    for (key, text) in
        [("kernel", path(&full.kernel)), ("ramdisk", path(&full.ramdisk)), ("cmdline", full.cmdline.clone())]
    {
        if let Some(text) = text {
            info.insert(key.to_owned(), json!(text));
        }
    }
    if let Some(bytes) = spec.maxmem.or(spec.memory) {
        info.insert("max_memkb".to_owned(), json!(bytes / 1024));
    }
    if let Some(bytes) = spec.memory {
        info.insert("target_memkb".to_owned(), json!(bytes / 1024));
    }
    info.into()
}

fn ours(what: &Create) -> Value {
    let spec = &what.spec;
    // Text for people: bytes that are not UTF-8 show as U+FFFD here, and go to the guest as they are.
    let binds: Vec<Value> = spec
        .binds
        .iter()
        .map(|b| {
            json!({ "source": b.source.to_string_lossy(), "target": b.target.to_string_lossy(), "read_only": b.read_only })
        })
        .collect();
    let env: Vec<Value> = spec.env.iter().map(|(k, v)| json!([k.to_string_lossy(), v.to_string_lossy()])).collect();
    json!({
        "image": spec.image,
        "backend": spec.backend,
        "vcpus": spec.vcpus,
        "executor": spec.full.executor,
        "disks": spec.full.disks,
        "vifs": spec.full.vifs,
        "publish": spec.full.publish,
        "arch": spec.arch,
        "hostname": spec.hostname,
        "cpus": spec.cpus,
        "network": spec.network,
        "userns": spec.userns,
        "binfmt": spec.binfmt,
        "accel": spec.accel,
        "accel_exclude": spec.accel_exclude,
        "cpu": spec.cpu,
        "board": spec.board,
        "binds": binds,
        "env": env,
        "mirror": what.mirror,
        "include": what.include,
        "rm": spec.rm,
        "replace": what.replace,
        "paused": what.paused,
        "wait": what.wait,
        "timeout": what.timeout.map(|t| t.as_secs()),
        "keep": what.keep,
        "no_credentials": spec.no_credentials,
    })
}
