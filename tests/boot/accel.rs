//! Native programs in a foreign guest (`--accel`): what is native, that it makes what the guest's own would make, and that the guest's files know
//! nothing of it. What a newcomer would get wrong: programs are fetched from a mirror and tried once for each store, which takes longer than
//! most cases; so cases that look at what comes of it use the shared store, and only those that look at the fetch have one of their own.

use std::time::Duration;

use super::accel_builds::{MAKE, RUN};
use crate::common::fixtures::{self, BOOKWORM_AMD64, BOOKWORM_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch, shared};

cases! {
    Together: a_guest_builds_natively_and_stays_its_own, known_scripts_are_native_and_ask_the_guest, what_cannot_be_native,
            what_fails_its_trial_stays_emulated, a_trial_that_is_killed_leaves_nothing;
}

/// Where the compiler looks and what it hands on, also to a linker of a build's own.
const LOOKS: &str = r#"
for w in -print-search-dirs -print-sysroot -dumpspecs -print-prog-name=ld -print-file-name=crt1.o -print-multi-lib; do gcc $w; done | sha256sum
echo | g++ -x c++ -v -E - 2>&1 | sed -n '/^#include/,/^End/p'
gcc -v c.o -o v 2>&1 | grep -E '^(LIBRARY|COMPILER)_PATH|collect2' | sed 's/-fresolution=[^ ]*//'
mkdir -p own; printf '#!/bin/sh\necho an own linker\n' >own/ld; chmod 755 own/ld; gcc -Bown/ c.o -o v; PATH=$PWD/own:$PATH gcc c.o -o v
gcc -fuse-ld=gold c.o -o v && ./v"#;

fn compile() -> String {
    format!("{MAKE}\n{LOOKS}\n{RUN}")
}

fn a_guest_builds_natively_and_stays_its_own() {
    let pronto = shared();
    let options = ["--arch", "arm64", "--accel", "build", "--mirror", fixtures::mirror()];
    let out = pronto.create("b", BOOKWORM_ARM64.tree(), &options);
    assert!(out.err().contains("native: ") && out.err().contains(" and gcc 12.2.0"), "{out}");
    let sh = |script: &str| pronto.exec("b", &["sh", "-c", script]);
    assert!(sh("readlink /proc/$$/exe").starts_with("/run/accel/bin/"), "{}", sh("readlink /proc/$$/exe"));

    let machine = "uname -m; arch; readlink /bin/uname; dpkg --print-architecture; bash -c 'echo $HOSTTYPE $MACHTYPE'";
    assert_eq!(sh(machine), "aarch64\naarch64\narm64\naarch64 aarch64-unknown-linux-gnu");

    // What comes later is native, too.
    let install = "apt-get -qq update && apt-get -qq -y install --no-install-recommends g++ make fakeroot libc6-dev >/dev/null 2>&1; echo $?";
    assert_eq!(sh(&format!("export DEBIAN_FRONTEND=noninteractive; {install}")), "0");
    let accelerated = sh(&compile());
    assert!(sh("gcc -v 2>&1").contains("--build=x86_64-linux-gnu"), "it is the native one");
    assert!(accelerated.ends_with("7 32 c.c\nthrown\n7 32 c.c\n7 32 c.c\n7 32 c.c"), "{accelerated}");
    assert_eq!(
        sh("cd /root/b; gcc -dumpmachine; gcc -march=native -O2 -c c.c && echo good"),
        "aarch64-linux-gnu\ngood"
    );
    assert_eq!(
        sh("cd /root/b; printf 'all: -lm\\n\\t@echo $(MAKE_HOST) $^\\n' >Makefile; make"),
        "aarch64-unknown-linux-gnu /usr/lib/aarch64-linux-gnu/libm.so"
    );
    assert_eq!(sh("printf '\\344' | iconv -f latin1 -t utf-8"), "\u{e4}");
    // What guards the stack is made by the guest's own, where the two compilers are not of one revision.
    let guard = "cd /root/b; printf 'void f(char *); void g(void) { char b[64]; f(b); }' >g.c; gcc -O2 -fstack-protector-strong -c g.c && objcopy -R .comment g.o && sha256sum g.o";
    let guarded = sh(guard);
    // A library that a path names is for emulated programs.
    assert_eq!(
        sh("LD_PRELOAD=/lib/aarch64-linux-gnu/libm.so.6 sed -n '/libm.so.6/{s/.*libm/libm/p;q}' /proc/self/maps"),
        "libm.so.6"
    );

    // fakeroot's library for native programs, and one daemon for both kinds.
    let faked = "cd /tmp; fakeroot sh -c 'touch f; chown 5:6 f; id -u; stat -c %u:%g f; perl -e \"print join(q(:), (stat q(f))[4,5])\"'";
    assert_eq!(sh(&format!("setpriv --reuid 1000 --regid 1000 --clear-groups sh -c {}", quoted(faked))), "0\n5:6\n5:6");

    // Another version is another program, and one with more rights than its caller is never native.
    let exe = "$0 100 & sleep 0.5; readlink /proc/$!/exe; kill $!";
    let run = |program: &str, before: &str| sh(&format!("{before}; sh -c '{exe}' {program} 2>/dev/null"));
    assert!(run("/bin/sleep", "true").starts_with("/run/accel/"));
    let other = "cp /bin/sleep /opt/other; printf X | dd of=/opt/other bs=1 seek=1000 conv=notrunc 2>/dev/null";
    assert!(!run("/opt/other", other).starts_with("/run/accel/"));
    let secure = "cp /bin/sleep /opt/secure; chmod 4755 /opt/secure";
    let as_user = format!(
        "{secure}; setpriv --reuid 1000 --clear-groups sh -c '/opt/secure 100 & echo $!' >/tmp/pid 2>/dev/null; sleep 0.5; readlink /proc/$(cat /tmp/pid)/exe; kill $(cat /tmp/pid)"
    );
    assert!(!sh(&as_user).starts_with("/run/accel/"), "{}", sh(&as_user));

    // What changes a program changes the guest's own.
    let elf = "chmod 700 /bin/sed; chown 1:1 /bin/sed; strip -o /opt/stripped /bin/gzip; od -An -tu2 -j18 -N2 /bin/sed /opt/stripped | tr -d ' \\n'; chmod 755 /bin/sed; chown 0:0 /bin/sed";
    assert_eq!(sh(elf), "183", "EM_AARCH64, which od prints once");

    let tar = scratch("export").join("out.tar");
    pronto.run(["shutdown", "-w", "b"]).ok();
    pronto.cmd(["export", "b"]).arg(&tar).run().ok();
    let names = crate::common::run::Run::new("tar").arg("-tf").arg(&tar).run().ok().text();
    assert!(names.contains("usr/bin/sed") && !names.contains("run/accel"), "an export knows nothing of it");

    pronto.run(["start", "--accel", "off", "b"]).ok();
    assert!(!sh("readlink /proc/$$/exe").starts_with("/run/accel/"));
    assert_eq!(sh("dpkg --verify gcc-12 cpp-12 g++-12 make sed dash binutils-aarch64-linux-gnu coreutils"), "");
    assert_eq!(sh(&compile()), accelerated, "byte by byte, but for the compiler's name");
    assert_eq!(sh(guard), guarded);
    pronto.run(["destroy", "b"]).ok();
    pronto.run(["delete", "b"]).ok();

    // The same programs serve others, less what they exclude.
    let words = |options: &[&str], script: &str| {
        let run = pronto.cmd(["run", "--arch", "arm64", "--accel", "tools"]).args(options).arg(BOOKWORM_ARM64.tree());
        run.args(["--", "bash", "-c", script]).run()
    };
    let both = "sleep 9 & sleep 0.3; readlink /proc/$!/exe; kill $!; readlink /proc/$$/exe";
    let seen = words(&["--accel-exclude", "sleep"], both).ok().text();
    let seen: Vec<bool> = seen.lines().map(|line| line.starts_with("/run/accel/")).collect();
    assert_eq!(seen, [false, true]);
    // So they do by the host's registry, and without ids of its own.
    for options in [&["--binfmt", "host"][..], &["--binfmt", "host", "--no-userns"], &["--binfmt", "private"]] {
        let seen = words(options, both).ok().text();
        let native = seen.lines().filter(|line| line.starts_with("/run/accel/")).count();
        assert_eq!((native, seen.lines().count()), (2, 2), "{options:?}: {seen}");
    }
    words(&["--accel-exclude", "nothing-such"], "true").exits(125).says("names 'nothing-such'");
}

/// A package of a C program, its library and a Perl script, and a project of meson's.
const PROJECTS: &str = r#"
mkdir -p /root/m /root/meson /root/deb/hi-1.0/debian/source
cd /root/meson
cat >meson.build <<'end'
project('tiny', 'c', version: '1.2')
conf = configuration_data()
conf.set_quoted('VERSION', meson.project_version())
conf.set('BITS', meson.get_compiler('c').sizeof('void *') * 8)
conf.set_quoted('CPU', ' '.join([host_machine.cpu(), host_machine.cpu_family(), host_machine.endian()]))
conf.set_quoted('SH', run_command('uname', '-m', check: true).stdout().strip())
configure_file(output: 'config.h', configuration: conf)
lib = shared_library('tiny', 'lib.c', dependencies: dependency('zlib'), version: '1.0.0', install: true)
gen = custom_target('gen', output: 'gen.h', input: 'in.txt', command: ['sed', 's/x/y/', '@INPUT@'], capture: true)
test('runs', executable('main', 'main.c', gen, link_with: lib, install: true))
import('pkgconfig').generate(lib, description: 'tiny')
end
echo 'int xx;' >in.txt
printf '#include <zlib.h>
const char *tiny(void) { return zlibVersion(); }
' >lib.c
printf '#include <stdio.h>
#include "config.h"
#include "gen.h"
const char *tiny(void);
int main(void) { printf("%%s %%s %%d %%d\\n", VERSION, CPU, BITS, yx); return !tiny(); }
' >main.c
cd /root/deb/hi-1.0
echo '3.0 (native)' >debian/source/format
printf 'hi (1.0) unstable; urgency=medium

  * New.

 -- A B <a@b.example>  Mon, 01 Jan 2024 00:00:00 +0000
' >debian/changelog
printf 'Source: hi
Section: misc
Priority: optional
Maintainer: A B <a@b.example>
Standards-Version: 4.6.2
Build-Depends: debhelper-compat (= 13)

Package: hi
Architecture: any
Depends: ${shlibs:Depends}, ${misc:Depends}, ${perl:Depends}
Description: hi
 It says hi.
' >debian/control
printf '#!/usr/bin/make -f
%%:
	dh $@
' >debian/rules; chmod 755 debian/rules
printf 'hi usr/bin
hi.pl usr/bin
libhi.so.1 usr/lib/${DEB_HOST_MULTIARCH}
' >debian/hi.install
printf '[Service]
ExecStart=/usr/bin/hi
[Install]
WantedBy=multi-user.target
' >debian/hi.service
printf 'all:
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -fPIC -Wl,-soname,libhi.so.1 -o libhi.so.1 lib.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o hi main.c libhi.so.1
clean:
	rm -f hi libhi.so.1
install:
' >Makefile
printf 'int hi(int x) { return x + 1; }
' >lib.c
printf '#include <stdio.h>
int hi(int);
int main(int c, char **v) { char b[100]; snprintf(b, 100, "%%s %%d", v[0], hi(c)); puts(b); return 0; }
' >main.c
printf '#!/usr/bin/perl -w
use Config;
print "hi from $Config{archname}\n";
' >hi.pl; chmod 755 hi.pl
# What scripts are asked to load besides.
cd /root/m
printf 'package Tell; use POSIX (); use Config; print join(" ", readlink("/proc/self/exe"), $^X, $Config{archname}, (POSIX::uname())[4]), "\n"; 1;
' >Tell.pm
printf 'package Twin; use Locale::gettext; print readlink("/proc/self/exe"), "\n"; 1;
' >Twin.pm
printf 'package Xs; use JSON::XS; print readlink("/proc/self/exe"), " ", encode_json([1, 2]), "\n"; 1;
' >Xs.pm
printf 'package Late; INIT { require JSON::XS; print readlink("/proc/self/exe"), "\n"; } 1;
' >Late.pm
printf 'package Written; INIT { $| = 1; print "written\n"; print eval { require JSON::XS } ? 1 : 0, readlink("/proc/self/exe"), "\n"; } 1;
' >Written.pm
printf 'import os, platform, sys, sysconfig, _ssl, _ctypes
print(os.readlink("/proc/self/exe"), sys.executable, platform.machine(), sysconfig.get_config_var("EXT_SUFFIX"))
' >sitecustomize.py"#;

/// Builds both, and what came of it as hashes.
const PACKAGE: &str = r#"
export TZ=UTC
cd /root/meson; rm -rf b
{ meson setup b && ninja -C b && meson test -C b; } >/root/meson.log 2>&1 &
cd /root/deb/hi-1.0; dpkg-buildpackage -b -d -us -uc >/root/deb.log 2>&1 || tail /root/deb.log
wait $! || tail /root/meson.log
sha256sum ../*.deb; dpkg-architecture; dpkg-buildflags
cd /root/meson/b; sha256sum build.ninja config.h gen.h compile_commands.json meson-info/*.json meson-private/*.pc"#;

fn known_scripts_are_native_and_ask_the_guest() {
    let pronto = shared();
    let options = ["--arch", "arm64", "--accel", "build", "--mirror", fixtures::mirror()];
    pronto.create("s", BOOKWORM_ARM64.tree(), &options);
    let sh = |script: &str| {
        let run = pronto.cmd(["exec", "s", "--", "sh", "-c", script]).limit(Duration::from_secs(400)).run();
        run.ok().text().trim().to_owned()
    };
    let packages =
        "debhelper fakeroot gcc libc6-dev make meson pkg-config zlib1g-dev libjson-xs-perl liblocale-gettext-perl";
    let install = format!(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq -y install --no-install-recommends {packages} >/dev/null 2>&1; echo $?"
    );
    assert_eq!(sh(&install), "0");
    sh(PROJECTS);
    let with = |module: &str, command: &str| sh(&format!("PERL5LIB=/root/m PERL5OPT=-M{module} {command} | head -n 2"));
    let native = "/run/accel/bin/usr/bin/perl";
    let machine = "aarch64-linux-gnu-thread-multi aarch64";
    assert_eq!(with("Tell", "dpkg-architecture -qDEB_HOST_ARCH"), format!("{native} /usr/bin/perl {machine}\narm64"));
    for command in ["perl -w /usr/bin/dpkg-vendor --query Vendor", "/bin/dpkg-vendor --query Vendor"] {
        assert_eq!(with("Tell", command), format!("{native} /usr/bin/perl {machine}\nDebian"));
    }
    // Modules with machine code: ours in the place of the guest's; or all of it emulated, unless it has begun to write.
    let arch = |module: &str| with(module, "dpkg-architecture -qDEB_HOST_ARCH");
    assert_eq!(arch("Twin"), format!("{native}\narm64"));
    assert_eq!(arch("Xs"), "/usr/bin/perl [1,2]\narm64");
    assert_eq!(arch("Late"), "/usr/bin/perl\narm64");
    assert_eq!(arch("Written"), format!("written\n0{native}"));
    let python = "PYTHONPATH=/root/m meson --version; PYTHONPATH=/root/m python3 /usr/bin/meson --version";
    let told = "/run/accel/bin/usr/bin/python3.11 /usr/bin/python3 aarch64 .cpython-311-aarch64-linux-gnu.so\n1.0.1";
    assert_eq!(sh(python), format!("{told}\n{told}"));
    // All else is the guest's own.
    let own = r#"perl -MConfig -e 'print join " ", readlink "/proc/self/exe", $Config{archname}, @INC'; echo
perl -MJSON::XS -e 'print encode_json([readlink "/proc/self/exe"])'; echo
python3 -c 'import os, sys, sysconfig, platform; print(os.readlink("/proc/self/exe"), sys.path, platform.machine(), sysconfig.get_config_vars())'
cp /usr/bin/dpkg-vendor /root/m/copy; PERL5LIB=/root/m PERL5OPT=-MTell /root/m/copy --query Vendor"#;
    let owned = sh(own);
    assert!(owned.contains("[\"/usr/bin/perl\"]") && !owned.contains("/run/accel"), "{owned}");
    let made = sh(PACKAGE);
    assert!(made.contains("hi_1.0_arm64.deb") && made.contains("meson-private/tiny.pc"), "{made}");

    pronto.run(["shutdown", "-w", "s"]).ok();
    pronto.run(["start", "--accel", "off", "s"]).ok();
    assert_eq!(
        with("Tell", "dpkg-architecture -qDEB_HOST_ARCH"),
        format!("/usr/bin/perl /usr/bin/perl {machine}\narm64")
    );
    assert_eq!(sh(own), owned);
    assert_eq!(sh(PACKAGE), made);
    pronto.run(["destroy", "s"]).ok();
    pronto.run(["delete", "s"]).ok();
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

fn what_cannot_be_native() {
    let pronto = Pronto::fresh();
    let out = pronto.cmd(["run", "--accel", "tools"]).arg(BOOKWORM_AMD64.tree()).args(["--", "true"]).run().ok();
    assert!(out.err().contains("this host runs this image itself"), "{out}");
    // Programs that cannot be had, and a wait that somebody ends: the guest runs, or does not, and nothing half-made stays.
    let nowhere = ["run", "--arch", "arm64", "--accel", "tools", "--mirror", "http://127.0.0.1:1/debian"];
    let out = pronto.cmd(nowhere).arg(BOOKWORM_ARM64.tree()).args(["--", "uname", "-m"]).run().ok();
    assert!(out.err().contains("nothing is native, since there are no programs"), "{out}");
    assert_eq!(out.text().trim(), "aarch64");
    let cache = pronto.root().join("cache/accel");
    let half_made = || std::fs::read_dir(&cache).map_or(0, Iterator::count);
    assert_eq!(half_made(), 0);
    let fetch = ["run", "--arch", "arm64", "--accel", "tools", "--mirror", fixtures::mirror()];
    let running = pronto.cmd(fetch).arg(BOOKWORM_ARM64.tree()).args(["--", "true"]).start();
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while half_made() == 0 {
        assert!(std::time::Instant::now() < end, "nothing is being made");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait(Duration::from_secs(30)).exits(143);
    assert_eq!(half_made(), 0, "the fetch has gone with all that it had");
    assert!(pronto.rows().is_empty());
    pronto.cmd(["run", "--accel", "fast"]).arg(BOOKWORM_ARM64.tree()).run().exits(125).says("off, tools or build");
}

fn what_fails_its_trial_stays_emulated() {
    let pronto = Pronto::fresh();
    let text = "[accel]\nmode = \"build\"\nexclude = [\"xz-utils\", \"no-such-package\"]\n";
    ::pronto::sys::fs::write_atomic(&pronto.root().join("pronto.toml"), text.as_bytes(), 0o600).unwrap();
    // What is said of all guests is no complaint about one that it does not fit.
    let native = pronto.cmd(["run"]).arg(BOOKWORM_AMD64.tree()).args(["--", "true"]).run().ok();
    assert!(!native.err().contains("accel"), "{native}");
    // Two that are broken: a library that grep and others need, and a part of the compiler.
    let spoiled = "lib/libpcre2-8.so.0:bin/usr/lib/gcc/aarch64-linux-gnu/12/cc1plus";
    let create = pronto.cmd(["create", "--name", "t", "--arch", "arm64"]).arg(BOOKWORM_ARM64.tree());
    let out = create.env("PRONTO_FAIL_SPOIL", spoiled).limit(Duration::from_secs(400)).run().ok();
    let line = out.err().lines().find(|line| line.starts_with("native: ")).unwrap_or_default().to_owned();
    assert!(line.contains(" programs; not ") && !line.contains(" and gcc "), "{out}");
    assert!(!out.err().contains("fewer native programs"), "{out}");
    let told = pronto.run(["info", "t"]).ok().text();
    let line = |start: &str, end: &str| told.lines().any(|line| line.starts_with(start) && line.contains(end));
    assert!(line("failed its trial", "gcc 12.2.0 (cc1plus: ") && line("failed its trial", "grep ("), "{told}");
    assert!(line("not native", "xz-utils: it was excluded") && !told.contains("no-such-package"), "{told}");
    // The guest's own do the work of those that are broken.
    let sh = |script: &str| pronto.exec("t", &["sh", "-c", script]);
    assert_eq!(sh("echo abc | grep -o b; (exec grep -c . /proc/self/maps) >/dev/null && echo good"), "b\ngood");
    let exe = "$0 9 & sleep 0.5; readlink /proc/$!/exe; kill $!";
    assert!(sh(&format!("sh -c '{exe}' sleep")).starts_with("/run/accel/"));

    // One command without anything native, and with all the rest as it is.
    let off = |script: &str| pronto.run(["exec", "--accel", "off", "t", "--", "sh", "-c", script]).ok().text();
    let seen = off(
        "readlink /proc/self/exe; sh -c 'readlink /proc/self/exe'; ls -A /run/accel; mkdir -p /mnt/t; mount -t tmpfs t /mnt/t",
    );
    assert!(!seen.contains("accel"), "{seen}");
    assert_eq!(
        sh("readlink /proc/self/exe; grep -c ' /mnt/t ' /proc/mounts; umount /mnt/t"),
        "/run/accel/bin/bin/readlink\n1"
    );
    pronto.run(["exec", "--accel", "build", "t", "--", "true"]).exits(125).says("pronto start --accel build");

    profiles(&pronto);
    pronto.run(["destroy", "t"]).ok();
    pronto.run(["delete", "t"]).ok();
    // What nobody uses goes when that is asked for.
    let kept = || std::fs::read_dir(pronto.root().join("cache/accel")).map_or(0, Iterator::count);
    pronto.run(["prune", "-n", "--all"]).ok();
    std::thread::sleep(Duration::from_secs(1));
    pronto.run(["prune"]).ok();
    assert_eq!(kept(), 1, "they are good for the next domain");
}

/// `profile` of a domain in which most is native, but not grep.
fn profiles(pronto: &Pronto) {
    let file = pronto.root().join("profile.json");
    let work = "for n in 1 2 3 4 5; do echo $n | grep -q . && head --version >/dev/null; done; exit 7";
    let profile = |options: &[&str], script: &str| {
        pronto
            .cmd(["profile", "--format", "json", "-o"])
            .arg(&file)
            .args(options)
            .args(["t", "--", "sh", "-c", script])
            .run()
    };
    let row = |program: &str| -> (String, u64, f64) {
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let rows = told["programs"].as_array().unwrap().clone();
        let row =
            rows.into_iter().find(|row| row["program"] == program).unwrap_or_else(|| panic!("no {program}: {told}"));
        (row["by"].as_str().unwrap().to_owned(), row["execs"].as_u64().unwrap(), row["cpu_seconds"].as_f64().unwrap())
    };
    let out = profile(&[], work).exits(7);
    assert!(out.text().is_empty(), "stdout is the command's: {out}");
    assert_eq!((row("head").0.as_str(), row("head").1), ("native", 5));
    let grep = row("grep");
    assert!(grep.0 == "emulated" && grep.1 == 5 && grep.2 > 0.04, "{grep:?}");
    profile(&["--accel", "off"], work).exits(7);
    assert_eq!(row("head").0, "avoidable");
    let table = pronto.run(["profile", "t", "--", "sh", "-c", "echo out; sed --version >/dev/null"]).ok().prints("out");
    assert!(table.err().starts_with("PROGRAM ") && table.err().contains(" processes used "), "{table}");
    // One at a time; and one that is killed is in nobody's way.
    let running = pronto.cmd(["profile", "t", "--", "sleep", "60"]).start();
    crate::common::eventually(Duration::from_secs(20), "it has begun", || {
        (!pronto.exec("t", &["sh", "-c", "cat /proc/[0-9]*/comm | sed -n /^sleep$/p"]).is_empty()).then_some(())
    });
    pronto.run(["profile", "t", "--", "true"]).exits(125).says("another profile of 't' is being made");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait(Duration::from_secs(300));
    pronto.run(["profile", "t", "--", "true"]).ok().says("processes used");
}

fn a_trial_that_is_killed_leaves_nothing() {
    let pronto = Pronto::fresh();
    let create = ["create", "--name", "k", "--arch", "arm64", "--accel", "build", "--mirror", fixtures::mirror()];
    let running = pronto.cmd(create).arg(BOOKWORM_ARM64.tree()).start();
    crate::common::eventually(Duration::from_secs(200), "programs are tried", || {
        running.stderr().contains("trying native programs").then_some(())
    });
    let shells = || {
        let words = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        crate::common::pronto::pids().filter(|pid| String::from_utf8_lossy(&words(*pid)).contains("status.0")).count()
    };
    crate::common::eventually(Duration::from_secs(20), "shells run", || (shells() > 0).then_some(()));
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait(Duration::from_secs(300));
    crate::common::eventually(Duration::from_secs(5), "no shell is left", || (shells() == 0).then_some(()));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*pronto.root().to_string_lossy()), "{mounts}");
    pronto.run(["prune"]).ok().says("freed ");
    assert_eq!(std::fs::read_dir(pronto.root().join("cache/accel")).unwrap().count(), 0);
    assert!(pronto.rows().is_empty());
}
