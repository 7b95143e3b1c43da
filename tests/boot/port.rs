//! Out of one store and into another, with guests that boot on both sides. What a newcomer would get wrong: what was exported of a foreign
//! guest must be a system of that CPU and nothing else; that it boots again here proves little if our own files had gone along, so those
//! are looked for.

use super::guest::is_healthy;
use super::images::bare;
use crate::common::fixtures::{self, BOOKWORM_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::{BINARY, Pronto, registry, scratch};
use crate::common::run::Run;
use crate::common::secs;

cases! {
    Together: a_changed_domain_is_exported_and_boots_again, a_cache_saves_the_next_job_everything;
}

/// A running arm64 guest is changed, exported as it runs, as it is paused and when it is shut off, imported under a name, and boots from that.
fn a_changed_domain_is_exported_and_boots_again() {
    let (pronto, tree, dir) = (Pronto::fresh(), BOOKWORM_ARM64.tree(), scratch("export"));
    let at = |name: &str| dir.join(name).display().to_string();
    pronto.create("first", &tree, &["--arch", "arm64"]);
    let script = "echo kept >/etc/ring && rm /etc/issue && mkdir -p /etc/systemd/system/ring.d && chown 1000:1000 /etc/ring && \
                  ln -s /etc/shadow /srv/out && mount -t tmpfs none /mnt && echo no >/mnt/mounted && sync";
    pronto.exec("first", &["sh", "-c", script]);
    let out = pronto.cmd(["export", "first", &at("live.tar")]).limit(secs(300)).run().ok();
    assert!(out.err().contains("is running: it is exported as it is now"), "{out}");
    pronto.run(["pause", "first"]).ok();
    pronto.cmd(["export", "first", &at("paused.tar")]).limit(secs(300)).run().ok().silent();
    pronto.run(["unpause", "first"]).ok();
    pronto.cmd(["shutdown", "-w", "first"]).run().ok();
    pronto.cmd(["export", "first", &at("still.tar.zst")]).limit(secs(300)).run().ok().silent();
    let oci = format!("oci-archive:{}", at("still.oci"));
    pronto.cmd(["export", "first", &oci]).limit(secs(300)).run().ok().silent();
    for name in ["live.tar", "paused.tar", "still.tar.zst"] {
        let listed = Run::new("tar").args(["--numeric-owner", "-tvf", &at(name)]).run().ok().text();
        let lines: Vec<&str> = listed.lines().filter(|l| l.contains("pronto") || l.contains("etc/issue")).collect();
        assert!(lines.iter().all(|l| l.contains("issue.net")), "{name}: nothing of ours, nothing removed: {lines:?}");
        assert!(listed.contains("srv/out -> /etc/shadow") && !listed.contains("mounted"), "{name}");
        // Ids as the guest has them, whichever it was lent.
        let owner = listed.lines().find(|l| l.ends_with("etc/ring")).unwrap_or_default();
        assert!(owner.contains(" 1000/1000 "), "{name}: {owner}");
    }
    let said = pronto.cmd(["import", &at("still.tar.zst"), "changed"]).limit(secs(300)).run().ok();
    said.prints("localhost/changed:latest");
    pronto.cmd(["import", "--force", &oci, "changed:oci"]).limit(secs(300)).run().ok().prints("localhost/changed:oci");
    pronto.run(["delete", "first"]).ok();
    for (name, image) in [("second", "changed"), ("third", "changed:oci")] {
        let out = pronto.create(name, image, &[]);
        assert!(out.err().contains("emulated: arm64"), "its programs said what it is for: {out}");
        is_healthy(&pronto, name, &tree);
        assert_eq!(pronto.exec(name, &["cat", "/etc/ring"]), "kept");
        assert_eq!(pronto.exec(name, &["sh", "-c", "ls /etc/issue /mnt 2>/dev/null || true"]), "/mnt:");
        assert_eq!(pronto.exec(name, &["hostname"]), name);
        pronto.run(["destroy", name]).ok();
        pronto.run(["delete", name]).ok();
    }
}

/// The first job pulls an image and installs an init; the second has neither a network nor anything to install.
fn a_cache_saves_the_next_job_everything() {
    let (first, second, dir) = (Pronto::fresh(), Pronto::fresh(), scratch("cache"));
    let (image, cache) = (bare(), dir.join("cache").display().to_string());
    first.create("guest", &image, &["--arch", "amd64", "--timeout", "600s"]);
    first.run(["destroy", "guest"]).ok();
    first.cmd(["cache", "export", &cache]).limit(secs(300)).run().ok().silent();
    second.cmd(["cache", "import", &cache]).limit(secs(300)).run().ok().silent();
    let alone = Run::new("unshare")
        .args(["-n", BINARY, "--root"])
        .arg(second.root())
        .args(["create", "--name", "guest", &image]);
    // What was installed is known by the mirror that it came from, too.
    let out = alone.env("PRONTO_MIRROR", fixtures::mirror()).limit(secs(200)).run().ok();
    assert!(!out.err().contains("installing") && !out.err().contains("looking up"), "all of it was there: {out}");
    assert_eq!(second.exec("guest", &["cat", "/etc/ring"]), "bare");
    let out = second.run(["pull", "--arch", "amd64", &registry().image("ring/bare:gz")]).ok();
    assert!(out.err().contains("Image is up to date"), "the registry's own digest came along: {out}");
    second.run(["destroy", "guest"]).ok();
    let again = second.cmd(["cache", "import", &cache]).run().ok();
    assert!(again.err().contains(" 0 layers unpacked"), "{again}");
}
