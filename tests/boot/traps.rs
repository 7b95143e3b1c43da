//! What goes wrong under emulation elsewhere, each with a test that fails without its cure. What a newcomer would get wrong: most of them
//! are cured by flags of the registry's entry (P, O, C, F), by its mask, or by the registry's being the guest's own; nothing here asks how.

use std::path::Path;

use crate::common::elf::{Cpu, program};
use crate::common::fixtures::{
    BARE_ARM64, BOOKWORM_ARM64, BOOKWORM_ARMHF, OTHER_INITS_ARM64, Recipe, TRIXIE_ARM64, light,
};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch};
use crate::common::run::{Out, Run};
use crate::common::{secs, skip};

cases! {
    Together: unreadable_programs_run, names_are_kept, appimages_run, a_preloaded_library_is_the_guests, long_directories_are_read_in_32_bits,
              ping_works, an_old_interpreter_is_told,
              device_nodes_want_the_hosts_root;
    Alone: the_hosts_registry_may_be_flushed;
}

/// What a script says in an arm64 system without an init. Panics unless it ends with 0.
fn in_a_shell(recipe: Recipe, script: &str) -> Out {
    let pronto = Pronto::fresh();
    let run = pronto.cmd(["run", "--arch", "arm64"]).arg(recipe.tree()).args(["--", "sh", "-c", script]);
    run.run().ok()
}

/// A program that its caller may execute and not read: the interpreter gets it opened (flag O).
fn unreadable_programs_run() {
    let script = "install -m 0711 /bin/uname /usr/local/bin/hidden && exec setpriv --reuid=1000 --clear-groups \
                  sh -c 'cat /usr/local/bin/hidden >/dev/null 2>&1 && echo readable; /usr/local/bin/hidden -m'";
    in_a_shell(BARE_ARM64, script).prints("aarch64");
}

/// A program that does what it is called by (flag P), also by a name that is no file's.
fn names_are_kept() {
    let script =
        "ln -s /bin/busybox /tmp/basename && /tmp/basename /a/b && bash -c 'exec -a dirname /bin/busybox /a/b'";
    in_a_shell(OTHER_INITS_ARM64, script).prints("b\n/a");
}

/// AppImages have a mark in bytes 8 to 10 of their ELF header, which most masks take for another ABI.
fn appimages_run() {
    let (pronto, tree) = (Pronto::fresh(), scratch("appimage"));
    let mut image = program(Cpu::Arm64, b"unpacked\n", 0);
    image[8..11].copy_from_slice(b"AI\x02");
    ::pronto::sys::fs::write_volatile(&tree.join("app"), &image, 0o755).unwrap();
    pronto.cmd(["run", "--arch", "arm64"]).arg(&tree).arg("/app").run().ok().prints("unpacked");
}

/// `/etc/ld.so.preload` names a library of the guest's CPU: the interpreter, which is static, must not try to load it, and the
/// guest's programs must.
fn a_preloaded_library_is_the_guests() {
    let script = "echo /lib/aarch64-linux-gnu/libresolv.so.2 >/etc/ld.so.preload; cat /proc/self/maps | grep -c libresolv >/run/n; \
                  [ $(cat /run/n) -gt 0 ] && uname -m 2>&1";
    in_a_shell(BARE_ARM64, script).prints("aarch64");
}

/// ext4 tells positions in a directory in 64 bits, which a 32-bit getdents(2) cannot hold (EOVERFLOW). The calls are made by number,
/// since Debian's own programs use the 64-bit ones.
fn long_directories_are_read_in_32_bits() {
    let pronto = Pronto::fresh();
    // getdents 141, _llseek 140 of 32-bit ARM; a record is inode, position, length, name.
    let script = r#"
mkdir '/many'; for my $n (1 .. 3000) { open my $f, '>', "/many/$n" or die; }
for my $dir ('/many', '/usr/share/doc') {
    open my $d, '<', $dir or die "$dir: $!"; my ($count, $buffer) = (0, "\0" x 32768);
    while (1) {
        my $got = syscall(141, fileno $d, $buffer, 32768);
        die "$dir: $!\n" if $got < 0; last unless $got;
        for (my $at = 0; $at < $got;) { my ($ino, $off, $len) = unpack 'LLS', substr $buffer, $at, 10; $count++; $at += $len; }
    }
    print $dir, ' ', $count > ($dir eq '/many' ? 3001 : 50) ? "all\n" : "$count\n";
}"#;
    let run = pronto.cmd(["run", "--arch", "armhf"]).arg(BOOKWORM_ARMHF.tree()).args(["--", "perl", "-e", script]);
    run.run().ok().prints("/many all\n/usr/share/doc all");
}

/// systemd-binfmt begins by removing every entry there is, somebody else's package runs it, and another tool registers itself for the
/// same programs: a guest does not notice.
fn the_hosts_registry_may_be_flushed() {
    let registry = Path::new("/proc/sys/fs/binfmt_misc");
    let others = std::fs::read_dir(registry).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    if others.into_iter().any(|n| n != "register" && n != "status" && !n.starts_with("pronto-")) {
        skip!("this host has entries of its own, which a test must not take away");
    }
    let pronto = Pronto::fresh();
    pronto.create("guest", BOOKWORM_ARM64.tree(), &["--arch", "arm64"]);
    kernel("status", "-1");
    assert_eq!(pronto.exec("guest", &["uname", "-m"]), "aarch64", "flushed");
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
    kernel("register", &format!(":ring-other-tool:M::{magic}::/bin/false:F"));
    let asked = pronto.run([
        "exec",
        "guest",
        "--",
        "sh",
        "-c",
        "uname -m; systemctl restart dbus.service; systemctl is-system-running",
    ]);
    kernel("ring-other-tool", "-1");
    asked.ok().prints("aarch64\nrunning");
    pronto.run(["destroy", "guest"]).ok();
}

/// Writes to a file of the host's registry, as systemd-binfmt and packages' scripts do.
fn kernel(file: &str, text: &str) {
    use std::io::Write;
    let path = Path::new("/proc/sys/fs/binfmt_misc").join(file);
    let mut opened = std::fs::OpenOptions::new().write(true).open(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
    opened.write_all(text.as_bytes()).unwrap_or_else(|e| panic!("{file}: {e}"));
}

/// The host's network belongs to the host's user namespace: its kernel's ping sockets are what a guest can have, where the host opens
/// them (in a network of this test's own); in a network of the guest's own raw sockets are, for set-user-ID programs too.
fn ping_works() {
    let (pronto, tree) = (Pronto::fresh(), BARE_ARM64.tree());
    let ping = r#"setpriv --reuid=1000 --regid=1000 --clear-groups perl -MSocket -e '
        socket(S, AF_INET, SOCK_DGRAM, 1) or die "socket: $!\n"; alarm 20;
        send(S, pack("C2n3", 8, 0, 0, 0, 1), 0, sockaddr_in(0, inet_aton("127.0.0.1"))) or die "send: $!\n";
        recv(S, $reply, 100, 0); print "type ", unpack("C", $reply), "\n"'"#;
    let in_a_network = |range: &str| {
        let up = format!("ip link set lo up && echo '{range}' >/proc/sys/net/ipv4/ping_group_range && exec \"$@\"");
        let inner = pronto.cmd(["--quiet", "run", "--arch", "arm64"]).arg(&tree).args(["--", "sh", "-c", ping]);
        inner.below(["unshare", "--net", "sh", "-c", &up, "sh"]).run()
    };
    in_a_network("0 2147483647").ok().prints("type 0");
    let refused = in_a_network("1 0");
    assert!(refused.err().contains("socket: Permission denied"), "{refused}");
    let raw = r#"install -m 4755 /usr/bin/perl /usr/local/bin/raw && exec setpriv --reuid=1000 --regid=1000 --clear-groups \
        /usr/local/bin/raw -MSocket -e 'socket(S, AF_INET, SOCK_RAW, 1) or die "socket: $!\n"; print "raw\n"'"#;
    let own = pronto.cmd(["run", "--network", "none", "--arch", "arm64"]).arg(&tree).args(["--", "sh", "-c", raw]);
    own.run().ok().prints("raw");
}

/// Debian 12's own QEMU, in the place of this host's for one process tree: what it cannot run is refused before anything is made, what it
/// can runs, with a word about Go; and it stops, although this one cannot be told to keep real-time signals.
fn an_old_interpreter_is_told() {
    let (pronto, dir) = (Pronto::fresh(), scratch("old"));
    let fetched =
        Run::new("apt-get").args(["-qq", "download", "qemu-user-static=1:7.2*"]).dir(&dir).limit(secs(120)).run();
    if fetched.code() != 0 {
        skip!("qemu-user 7.2 is not among this host's packages (Debian 12 has it)");
    }
    Run::new("sh")
        .args(["-c", "dpkg-deb --fsys-tarfile *.deb | tar x ./usr/bin/qemu-aarch64-static"])
        .dir(&dir)
        .run()
        .ok();
    let put =
        format!("mount --bind {}/usr/bin/qemu-aarch64-static /usr/bin/qemu-aarch64 && exec \"$@\"", dir.display());
    let with_it = |words: &[&str], tree: &Path| {
        pronto
            .cmd(words.iter().copied())
            .arg(tree)
            .limit(secs(120))
            .below(["unshare", "--mount", "sh", "-c", &put, "sh"])
            .run()
    };
    let create = ["create", "--arch", "arm64", "--name", "guest"];
    with_it(&create, &TRIXIE_ARM64.tree())
        .exits(3)
        .says("qemu-user 7.2")
        .says("too old for systemd 257")
        .says("qemu-user 11");
    assert!(pronto.rows().is_empty(), "nothing is made");
    with_it(&create, &BOOKWORM_ARM64.tree()).ok().says("programs built with Go 1.23").says("is ready");
    assert_eq!(pronto.exec("guest", &["systemctl", "is-system-running"]), "running");
    pronto.run(["shutdown", "-w", "guest"]).ok();
    pronto.run(["delete", "guest"]).ok();
}

/// What README tells who wants debootstrap in a guest: no user namespace may make device nodes, and a domain without one may.
fn device_nodes_want_the_hosts_root() {
    let pronto = Pronto::fresh();
    let make = ["sh", "-c", "mknod /srv/null c 1 3 && echo gone >/srv/null && stat -c %F /srv/null"];
    pronto.create("mapped", light(), &["--rm"]);
    let refused = pronto.cmd(["exec", "mapped", "--"]).args(make).run();
    assert!(refused.code() != 0 && refused.err().contains("Operation not permitted"), "{refused}");
    pronto.run(["destroy", "mapped"]).ok();
    pronto.create("plain", light(), &["--rm", "--no-userns"]);
    assert_eq!(pronto.exec("plain", &make), "character special file");
    pronto.run(["destroy", "plain"]).ok();
}
