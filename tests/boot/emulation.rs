//! The emulation layer against real guests: what it resets is what fails under this host's QEMU, no more and no less, and it reaches
//! every unit. What a newcomer would get wrong: "fails" is tried in the guest with the layer's files taken away, and a setting that
//! systemd quietly does without (PrivateNetwork=) has failed, too.

use std::collections::BTreeSet;

use super::tar::Tar;
use crate::common::fixtures::{BOOKWORM_ARM64, BULLSEYE_ARM64, Recipe, TRIXIE_ARM64};
use crate::common::harness::cases;
use crate::common::oci::{Codec, Image, Layout};
use crate::common::pronto::{Pronto, scratch};
use crate::common::{read, secs, write};

cases! {
    Together: bullseye_resets_what_fails, bookworm_resets_what_fails, trixie_resets_what_fails, it_reaches_every_unit,
              what_does_nothing_is_spared, services_that_need_namespaces_are_named;
}

/// Every setting that can give a service a namespace of its own, with a value that does. Those that no systemd here knows are told
/// apart by systemd-run's own refusal.
const SETTINGS: &str = "PrivateUsers=yes PrivateNetwork=yes PrivateIPC=yes PrivatePIDs=yes LoadCredential=probe:/etc/hostname \
    SetCredential=probe:x ImportCredential=probe ReadWritePaths=/tmp ReadOnlyPaths=/etc InaccessiblePaths=/srv ExecPaths=/usr \
    NoExecPaths=/srv TemporaryFileSystem=/mnt BindPaths=/etc:/mnt BindReadOnlyPaths=/etc:/mnt MountFlags=slave MountAPIVFS=yes \
    PrivateTmp=yes PrivateDevices=yes PrivateMounts=yes ProtectSystem=strict ProtectHome=yes ProtectKernelTunables=yes \
    ProtectKernelModules=yes ProtectKernelLogs=yes ProtectControlGroups=yes ProtectHostname=yes ProtectClock=yes ProtectProc=invisible \
    ProcSubset=pid LogNamespace=probe RootDirectory=/ DynamicUser=yes StateDirectory=probe RestrictNamespaces=yes KeyringMode=private";

const TRY: &str = r#"
rm -f /usr/lib/systemd/*/*.d/zzz-pronto.conf; systemctl daemon-reload
ours=$(readlink /proc/self/ns/net)
for setting in SETTINGS; do
    case $setting in
        PrivateNetwork=*) set -- sh -c "[ \$(readlink /proc/self/ns/net) != '$ours' ]" ;;
        *) set -- /bin/true ;;
    esac
    said=$(systemd-run --quiet --wait --pipe -p "$setting" "$@" 2>&1) && continue
    case "$said" in *"Unknown assignment"* | *"Cannot set property"* | *"not supported"*) continue ;; esac
    echo "${setting%%=*}"
done"#;

fn resets_what_fails(recipe: Recipe) {
    let (pronto, tree) = (Pronto::fresh(), recipe.tree());
    pronto.create("guest", &tree, &["--arch", "arm64"]);
    let layer = pronto.root().join("domains/guest/emulation/usr/lib/systemd/system/service.d/zzz-pronto.conf");
    let reset: BTreeSet<String> = read(layer)
        .lines()
        .filter(|l| !l.starts_with(['#', '[']))
        // These two cannot be tried without a key of the machine's; they are set up as the others are.
        .filter(|l| !l.contains("Encrypted="))
        .filter_map(|l| Some(l.split_once('=')?.0.to_owned()))
        .collect();
    let script = TRY.replace("SETTINGS", SETTINGS);
    let out = pronto.cmd(["exec", "guest", "--", "sh", "-c", &script]).limit(secs(120)).run().ok();
    let failing: BTreeSet<String> = out.text().lines().map(str::to_owned).collect();
    assert!(failing.contains("PrivateUsers"), "the trial tries something: {out}");
    assert_eq!(reset, failing, "reset, then failing");
    pronto.run(["destroy", "guest"]).ok();
}

fn bullseye_resets_what_fails() {
    resets_what_fails(BULLSEYE_ARM64);
}

fn bookworm_resets_what_fails() {
    resets_what_fails(BOOKWORM_ARM64);
}

fn trixie_resets_what_fails() {
    resets_what_fails(TRIXIE_ARM64);
}

/// Sockets, services with users of their own, users' own managers, and what they are told later.
fn it_reaches_every_unit() {
    let (pronto, tree) = (Pronto::fresh(), TRIXIE_ARM64.tree());
    pronto.create("guest", &tree, &["--arch", "arm64"]);
    let script = r#"
cd /etc/systemd/system
printf '[Socket]\nListenStream=/run/probe\nPrivateNetwork=yes\nPrivateIPC=yes\n' >probe.socket
printf '[Service]\nExecStart=/bin/true\n' >probe.service
for setting in PrivatePIDs=yes PrivateUsers=yes SetCredential=a:b DynamicUser=yes RootDirectory=/; do
    # A state directory each: systemd moves one that a DynamicUser= shares, and they start at once.
    name=${setting%%=*}
    printf '[Service]\nType=oneshot\nExecStart=/bin/true\nStateDirectory=%s\n%s\n' $name $setting >$name.service
done
# This tree has no pam_systemd, which would say it.
mkdir user@.service.d; printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' >user@.service.d/dir.conf
systemctl daemon-reload
systemctl start probe.socket PrivatePIDs PrivateUsers SetCredential DynamicUser RootDirectory && echo started || journalctl -b -p notice --no-pager
loginctl enable-linger tester"#;
    assert_eq!(pronto.exec("guest", &["sh", "-c", script]), "started");
    let user = ["exec", "-u", "tester", "-e", "XDG_RUNTIME_DIR=/run/user/1000", "guest", "--", "systemctl", "--user"];
    let own = crate::common::eventually(secs(30), "the user's own manager runs", || {
        let out = pronto.cmd(user).arg("is-system-running").run();
        (out.code() == 0).then_some(out)
    });
    own.prints("running");
    pronto.cmd(user).args(["--failed", "--no-legend"]).run().ok().prints("");
    assert_eq!(pronto.exec("guest", &["systemctl", "is-system-running"]), "running");
    pronto.run(["shutdown", "-w", "guest"]).ok();
    // The host's QEMU may be another one when it starts again.
    let layer = pronto.root().join("domains/guest/emulation/usr/lib/systemd/system/service.d/zzz-pronto.conf");
    let text = read(&layer);
    write(&layer, "[Service]\nPrivateTmp=no\n");
    pronto.run(["start", "guest"]).ok();
    assert_eq!(read(&layer), text, "it is made anew");
    pronto.run(["destroy", "guest"]).ok();
}

/// What would do nothing at boot is not run; as soon as there is something to do for it, it is.
fn what_does_nothing_is_spared() {
    let (pronto, tree) = (Pronto::fresh(), TRIXIE_ARM64.tree());
    pronto.create("guest", &tree, &["--arch", "arm64"]);
    let skipped = "systemctl show -P ConditionResult systemd-sysusers systemd-remount-fs ldconfig systemd-update-done";
    assert_eq!(pronto.exec("guest", &["sh", "-c", skipped]).replace('\n', " ").trim(), "no  no  no  no");
    let state = "systemctl is-active console-getty systemd-tmpfiles-setup; ls -A /run/systemd/system-generators";
    assert_eq!(pronto.exec("guest", &["sh", "-c", state]), "active\nactive", "and no generator stays masked");
    let script = r#"
printf 'tmpfs /srv tmpfs defaults 0 0\n' >>/etc/fstab
printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: probe\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n### END INIT INFO\necho $1 >>/root/probe\n' >/etc/init.d/probe
printf '#!/bin/sh\necho rc.local >>/root/probe\n' >/etc/rc.local
chmod 755 /etc/init.d/probe /etc/rc.local; ln -s ../init.d/probe /etc/rc3.d/S01probe
mkdir -p /etc/sysusers.d; echo 'u newcomer -' >/etc/sysusers.d/probe.conf
systemctl daemon-reload
systemctl show -P SourcePath srv.mount probe.service; systemctl show -P UnitFileState rc-local.service"#;
    let reloaded = pronto.exec("guest", &["sh", "-c", script]);
    assert_eq!(
        reloaded.replace("\n\n", "\n"),
        "/etc/fstab\n/etc/init.d/probe\nenabled-runtime",
        "they are told at once"
    );
    pronto.run(["shutdown", "-w", "guest"]).ok();
    pronto.run(["start", "guest"]).ok();
    let done = "findmnt -no FSTYPE /srv; id -un newcomer; sort /root/probe; systemctl is-system-running";
    assert_eq!(pronto.exec("guest", &["sh", "-c", done]), "tmpfs\nnewcomer\nrc.local\nstart\nrunning");
    pronto.run(["destroy", "guest"]).ok();
}

/// What cannot work is told before it fails, with the way out; what is not enabled is no matter.
fn services_that_need_namespaces_are_named() {
    let (pronto, dir) = (Pronto::fresh(), scratch("needs"));
    let conf = dir.join("conf.tar");
    let unit = |text: &str| format!("[Service]\nType=oneshot\n{text}\n[Install]\nWantedBy=multi-user.target\n");
    let vpn = unit("ExecStart=/bin/true\nNetworkNamespacePath=/proc/1/ns/net");
    Tar::new()
        .file("etc/systemd/system/vpn.service", 0o644, vpn.as_bytes())
        .file("etc/systemd/system/idle.service", 0o644, vpn.as_bytes())
        .symlink("etc/systemd/system/multi-user.target.wants/vpn.service", "/etc/systemd/system/vpn.service")
        .write(&conf);
    let mut layout = Layout::new(&dir.join("oci"));
    layout.index("x", &[Image::new("arm64", &[&BOOKWORM_ARM64.tar(), &conf], Codec::Plain, &["/sbin/init"])]);
    let out = pronto.create("guest", format!("oci:{}:x", dir.join("oci").display()), &["--arch", "arm64"]);
    let said: Vec<String> = out.err().lines().filter(|l| l.contains("hexagon")).map(str::to_owned).collect();
    assert_eq!(said.len(), 1, "one line: {out}");
    assert!(said[0].contains("vpn.service") && said[0].contains("NetworkNamespacePath="), "{out}");
    pronto.run(["exec", "guest", "--", "systemctl", "is-failed", "vpn.service"]).ok().prints("failed");
    pronto.run(["destroy", "guest"]).ok();
}
