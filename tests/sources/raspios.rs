//! Raspberry Pi OS by name: an index in the form of the imager's (version 4), served on loopback. What a newcomer would get wrong: a small
//! tarball stands in the place of the disk image here. These tests are of the index, the choice and the digest of the decompressed
//! content; what a disk image becomes is tested elsewhere.

use pronto::ops::images::{images, obtain, pull, rmi};
use serde_json::{Value, json};

use super::*;
use crate::bench::Bench;

struct Pi {
    bench: Bench,
    files: Files,
    server: Server,
    list: Value,
}

/// The entries as the imager's index has them: one on top, others in lists, one list in a document of its own.
impl Pi {
    fn new() -> Pi {
        let (bench, files) = (Bench::new(), Files::default());
        let server = files.serve();
        let settings = format!("[raspios]\nindex = \"{}\"\n", server.url("os_list.json"));
        images::put(&bench.ctx.store.sources(), settings.as_bytes());
        let mut pi = Pi { bench, files, server, list: Value::Null };
        let top = pi.image("raspios_arm64", "2026-06-18", "trixie", "arm64", "");
        let lists = [
            pi.image("raspios_lite_arm64", "2026-06-18", "trixie", "arm64", "-lite"),
            pi.image("raspios_lite_armhf", "2026-06-18", "trixie", "armhf", "-lite"),
            pi.image("raspios_full_arm64", "2026-06-18", "trixie", "arm64", "-full"),
        ];
        let old = [
            pi.image("raspios_oldstable_lite_arm64", "2026-06-17", "bookworm", "arm64", "-lite"),
            pi.image("raspios_oldstable_lite_arm64", "2026-01-10", "bookworm", "arm64", "-lite"),
            pi.image("raspios_oldstable_lite_armhf", "2026-06-17", "bookworm", "armhf", "-lite"),
        ];
        let legacy = json!({"os_list": old});
        pi.files.put("legacy.json", legacy.to_string());
        pi.list = json!({
            "imager": {"latest_version": "2.0.6", "url": "https://www.raspberrypi.com/software/", "devices": [
                {"name": "Raspberry Pi 5", "tags": ["pi5-64bit"], "matching_type": "inclusive", "architecture": "armv8"}]},
            "os_list": [
                top,
                {"name": "Raspberry Pi OS (other)", "description": "Other versions", "icon": "https://h/i.png", "subitems": lists},
                {"name": "Legacy", "description": "", "subitems_url": pi.server.url("legacy.json")},
                {"name": "Other", "description": "", "subitems_url": "http://127.0.0.1:1/others.json"},
                {"name": "Erase", "description": "Format card as FAT32", "url": "internal://format"},
                {"name": "LibreELEC", "url": "https://releases.libreelec.tv/LibreELEC-RPi5.img.gz", "extract_sha256": "00"},
                {"name": "Odd", "url": null, "subitems": "none", "extract_size": "much"}, null, 7,
            ],
        });
        pi.publish();
        pi
    }

    fn publish(&self) {
        self.files.put("os_list.json", self.list.to_string());
    }

    fn image(&self, dir: &str, date: &str, release: &str, arch: &str, flavour: &str) -> Value {
        let stem = format!("{date}-raspios-{release}-{arch}{flavour}");
        let tar = Tar::new().dir("etc").file("etc/name", stem.as_bytes()).end();
        let packed = xz(&tar);
        let path = format!("{dir}/images/{dir}-{date}/{stem}.img.xz");
        self.files.put(&path, packed.clone());
        json!({
            "name": "Raspberry Pi OS", "description": "A port of Debian", "icon": "https://h/icon.png", "url": self.server.url(&path),
            "extract_size": tar.len(), "extract_sha256": hex(&tar), "image_download_size": packed.len(), "release_date": date,
            "devices": ["pi5-64bit", "pi4-64bit"], "init_format": "cloudinit-rpi", "architecture": "armv8",
        })
    }

    fn got(&self, word: &str, arch: Option<&str>) -> String {
        let platforms = arch.map(|a| pronto::ops::registry::platforms_named(a).unwrap());
        let artifact = obtain(&self.bench.ctx, word, platforms.as_deref(), false, None).unwrap();
        let name = std::fs::read_to_string(self.bench.tree(&artifact.layers[0]).join("etc/name")).unwrap();
        format!("{name} {}", artifact.platform.unwrap())
    }
}

#[test]
fn names_and_aliases_lead_to_the_newest() {
    let pi = Pi::new();
    for (word, arch, want) in [
        ("raspios/trixie", None, "2026-06-18-raspios-trixie-arm64 linux/arm64"),
        ("raspios/trixie-lite", None, "2026-06-18-raspios-trixie-arm64-lite linux/arm64"),
        ("raspios/trixie-lite", Some("armhf"), "2026-06-18-raspios-trixie-armhf-lite linux/arm/v6"),
        ("raspios/trixie-lite:armhf", None, "2026-06-18-raspios-trixie-armhf-lite linux/arm/v6"),
        ("raspios/latest-full", None, "2026-06-18-raspios-trixie-arm64-full linux/arm64"),
        ("raspios/bookworm-lite", None, "2026-06-17-raspios-bookworm-arm64-lite linux/arm64"),
        ("raspios/2026-01-10-lite", None, "2026-01-10-raspios-bookworm-arm64-lite linux/arm64"),
        ("raspios_lite:latest", None, "2026-06-18-raspios-trixie-armhf-lite linux/arm/v6"),
        ("raspbian_lite:latest", None, "2026-06-18-raspios-trixie-armhf-lite linux/arm/v6"),
        ("raspios_lite_arm64:latest", Some("arm64"), "2026-06-18-raspios-trixie-arm64-lite linux/arm64"),
        ("raspios_oldstable_lite:latest", None, "2026-06-17-raspios-bookworm-armhf-lite linux/arm/v6"),
        ("raspios_oldstable_lite_arm64:latest", None, "2026-06-17-raspios-bookworm-arm64-lite linux/arm64"),
        ("raspios_lite:2026-06-18", None, "2026-06-18-raspios-trixie-armhf-lite linux/arm/v6"),
    ] {
        assert_eq!(pi.got(word, arch), want, "{word}");
    }
    assert_eq!(asked(&pi.server, "os_list.json").len(), 1, "the index is kept");
    assert_eq!(asked(&pi.server, "legacy.json").len(), 1);
    let before = images(&pi.bench.ctx).unwrap().len();
    rmi(&pi.bench.ctx, "raspios/trixie-lite:armhf", None).unwrap();
    assert_eq!(images(&pi.bench.ctx).unwrap().len(), before - 1);
}

#[test]
fn what_the_index_cannot_answer() {
    let pi = Pi::new();
    for (word, arch, why) in [
        (
            "raspios_lite:2021-03-04",
            "armhf",
            "raspios/2021-03-04-lite was not found at 127.0.0.1: it has raspios/bookworm-lite (2026-01-10), ",
        ),
        ("raspios/buster", "arm64", "it has raspios/bookworm-lite (2026-01-10), "),
        ("raspios/trixie", "riscv64", "has no platform linux/riscv64/rva20u64 or linux/riscv64; it has linux/arm64"),
        ("raspios_lite:latest", "arm64", "has no platform linux/arm64"),
        ("dietpi:rpi_armv8_bookworm", "arm64", "give the URL of its image"),
        ("raspi_3_bookworm:20231109", "arm64", "give the URL of its image"),
    ] {
        let error = pi.bench.fails(word, arch);
        assert!(error.contains(why), "{word}: {error}");
    }
}

#[test]
fn a_pull_asks_the_index() {
    let mut pi = Pi::new();
    let pulled = || pull(&pi.bench.ctx, "raspios/trixie", Some("arm64"), false, None).unwrap().fetched;
    assert!(pulled());
    assert!(!pulled());
    pi.list["os_list"][0] = pi.image("raspios_arm64", "2026-08-01", "trixie", "arm64", "");
    pi.publish();
    assert!(pull(&pi.bench.ctx, "raspios/trixie", Some("arm64"), false, None).unwrap().fetched);
    assert!(pi.got("raspios/trixie", None).starts_with("2026-08-01"));
}

#[test]
fn what_the_index_promises_is_checked() {
    let zero = "0".repeat(64);
    for (key, value, why) in [
        ("extract_sha256", json!(zero), "is damaged: its digest is sha256:"),
        ("extract_sha256", json!(""), "has no SHA-256 of what is in it"),
        ("image_download_sha256", json!(zero), "is damaged: its digest is sha256:"),
        ("image_download_size", json!(7), "is truncated or too long"),
        ("url", json!("http://127.0.0.1:1/2026-06-18-raspios-trixie-arm64.img.xz"), "in the index is refused"),
        ("url", json!("file:///2026-06-18-raspios-trixie-arm64.img.xz"), "in the index is refused"),
    ] {
        let mut pi = Pi::new();
        pi.list["os_list"][0][key] = value;
        pi.publish();
        let error = pi.bench.fails("raspios/trixie", "arm64");
        assert!(error.contains(why), "{key}: {error}");
        assert!(images(&pi.bench.ctx).unwrap().is_empty());
    }
}

#[test]
fn an_index_that_goes_round_or_down() {
    let pi = Pi::new();
    // Lists in lists, deeper than anybody looks, and a document that leads to itself and to many others.
    let mut deep = pi.image("raspios_arm64", "2026-06-18", "deep", "arm64", "");
    for _ in 0..6 {
        deep = json!({"name": "list", "subitems": [deep]});
    }
    let mut list = vec![deep, json!({"subitems_url": pi.server.url("os_list.json")})];
    list.extend((0..50).map(|n| json!({"subitems_url": pi.server.url(&format!("more/{n}.json"))})));
    for n in 0..50 {
        pi.files.put(&format!("more/{n}.json"), r#"{"os_list": []}"#);
    }
    pi.files.put("os_list.json", json!({"os_list": list}).to_string());
    let error = pi.bench.fails("raspios/deep", "arm64");
    assert!(error.contains("was not found at 127.0.0.1"), "{error}");
    assert!(pi.server.requests().len() < 12, "{}", pi.server.requests().len());
    for (body, why) in [("<html>", "HTML"), ("{}", "no index of images"), ("[1", "no index of images")] {
        let pi = Pi::new();
        pi.files.put("os_list.json", body);
        let error = pi.bench.fails("raspios/trixie", "arm64");
        assert!(error.contains(why), "{error}");
    }
}
