//! The table of keys, and the page that shows it.

use super::super::keys::{Backend, KEYS, Key, Shape, Use, find};
use super::read;

const PAGE: &str = include_str!("../../../../docs/xl-cfg.md");
const BEGIN: &str = "<!-- the table of keys: made from src/domain/xlcfg/table.rs -->\n";

fn row(key: &Key) -> String {
    let shape = match key.shape {
        Shape::Text => "text",
        Shape::Number => "number",
        Shape::Size => "MiB",
        Shape::Truth | Shape::Word => "0 or 1",
        Shape::List => "list",
        Shape::Either => "text or list",
    };
    let cell = |backend| match key.on(backend) {
        Use::Obeyed => "yes",
        Use::Passed => "as it is",
        Use::Nothing => "–",
    };
    let (kaxon, qemu, xen) = (cell(Backend::Kaxon), cell(Backend::Qemu), cell(Backend::Xen));
    format!("| `{}` | {shape} | {kaxon} | {qemu} | {xen} |\n", key.name)
}

#[test]
fn the_page_shows_the_table() {
    let rows: String = KEYS.iter().map(row).collect();
    let want = format!("{BEGIN}| key | value | kaxon | QEMU | Xen |\n|---|---|---|---|---|\n{rows}");
    let from = PAGE.find(BEGIN).expect("docs/xl-cfg.md has the table's mark");
    let there = &PAGE[from..];
    let missing: Vec<&str> = want.lines().filter(|line| !there.lines().any(|other| other == *line)).collect();
    let stale: Vec<&str> = there.lines().filter(|line| !want.lines().any(|other| other == *line)).collect();
    assert!(missing.is_empty() && stale.is_empty(), "docs/xl-cfg.md lacks {missing:#?} and should not have {stale:#?}");
    assert_eq!(there, want, "the rows of docs/xl-cfg.md stand in another order");
}

#[test]
fn sorted_and_found() {
    assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted, and each once");
    for key in KEYS {
        assert_eq!(find(key.name), Some(key));
    }
    assert_eq!(find("memroy"), None);
}

#[test]
fn own_keys_never_reach_xl() {
    for own in ["accel", "accel_exclude", "binfmt", "hostname", "network", "userns"] {
        assert_eq!(find(own).unwrap().on(Backend::Xen), Use::Nothing, "{own}");
    }
    for own in ["image", "arch", "backend"] {
        assert_ne!(find(own).unwrap().on(Backend::Xen), Use::Passed, "{own}");
    }
}

#[test]
fn unknown_keys_are_named_with_what_is_near() {
    let config = read("memroy = 1\nzzzzzzzzz = 1\nname = 'x'\nvcpu = 2");
    let said: Vec<String> = config.unheeded(Backend::Xen).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "web.cfg:1:1: 'memroy' is no key, and does nothing; did you mean memory?",
            "web.cfg:2:1: 'zzzzzzzzz' is no key, and does nothing",
            "web.cfg:4:1: 'vcpu' is no key, and does nothing; did you mean vcpus?",
        ]
    );
}
