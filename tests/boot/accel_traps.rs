//! Traps of native programs in a foreign guest (`--accel`): each was seen, or is known of such programs elsewhere. What a newcomer would get
//! wrong: what is right is not written down here but asked of the guest itself, by the same commands emulated (`exec --accel off`).

use std::time::Duration;

use crate::common::fixtures::{self, TRIXIE_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::shared;

cases! {
    Together: what_programs_say_and_load_is_the_guests;
}

/// What the tools find, make and say. `/usr` is merged in this release; all paths are the guest's.
const TOOLS: &str = r#"
cat /proc/cpuinfo; grep -c ^processor /proc/cpuinfo; cat /proc/sys/kernel/arch
rm -rf /root/w; mkdir -p /root/w; cd /root/w
cat >CMakeLists.txt <<'end'
cmake_minimum_required(VERSION 3.20)
project(p C)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(X REQUIRED zlib)
add_executable(m m.c)
target_link_libraries(m ZLIB::ZLIB)
message(STATUS "${CMAKE_HOST_SYSTEM_PROCESSOR} ${CMAKE_COMMAND} ${CMAKE_ROOT} ${CMAKE_LIBRARY_ARCHITECTURE} ${X_LINK_LIBRARIES}")
end
printf '#include <zlib.h>\n#include <stdio.h>\nint main(void) { return !puts(zlibVersion()); }\n' >m.c
cmake -B b >c.log || tail c.log; sed 's/ done (.*s)$/ done/' c.log; make -C b && b/m && objcopy -R .comment -R .note.gnu.build-id b/m && sha256sum b/m b/CMakeCache.txt
grep -rl run/accel b
pkg-config --variable pc_path pkg-config; pkgconf --dump-personality; pkg-config --cflags --libs zlib
mkdir -p d/DEBIAN d/etc; printf 'Package: x\nVersion: 1\nArchitecture: arm64\nMaintainer: A <a@b>\nDescription: x\n' >d/DEBIAN/control
cp /usr/include/zlib.h d/etc; find d -exec touch -d @1000000000 {} +; export SOURCE_DATE_EPOCH=1000000000
for z in xz gzip zstd; do dpkg-deb --root-owner-group -Z$z -b d $z.deb; done; sha256sum *.deb; dpkg-deb -b d .; ls; dpkg-deb --version
file -b /usr/bin/sed b/m xz.deb
printf 'msgid ""\nmsgstr "Content-Type: text/plain; charset=EUC-JP\\n"\n\nmsgid "a"\nmsgstr "\244\242"\n' >a.po; msgfmt a.po -o a.mo; msgconv -t UTF-8 a.po; sha256sum a.mo
ldd /usr/bin/sed | sed 's/(0x.*//'; strip -o st /usr/bin/sed; sha256sum st"#;

/// What depends on the language and on sets of characters.
const WORDS: &str = r#"
for c in latin1 EUC-JP SHIFT_JIS GB18030 UTF-16LE KOI8-R ISO-2022-JP BIG5; do printf 'ab' | iconv -f ASCII -t $c | od -An -tx1; done
printf '\244\242' | iconv -f EUC-JP -t UTF-8; printf 'ä€' | iconv -f UTF-8 -t ASCII//TRANSLIT; iconv -l | sha256sum
export LC_ALL=de_DE.UTF-8; printf 'z\nä\na\nÄ\nb\nZ\n' | sort; printf 'ÄÖ\n' | sed 's/./x/g'; printf 'aÄÖ\n' | grep -o '[[:upper:]]'
printf 'x%0.2f\n' 1,5; LC_ALL=de_DE.UTF-8 ls /nix 2>&1; date -u -d 2020-03-01 +%A,%B; bash -c 'x=äö; echo ${#x} ${x^^}'
printf 'ä€' | iconv -f UTF-8 -t ASCII//TRANSLIT; echo"#;

/// The code that sed runs, its own and its libraries'.
const CODE: &str = r"sed -n 's/.* r-xp.* \//\//p' /proc/self/maps | sort -u";

/// Whether `sleep` at this path is native.
const SLEEP: &str = "$0 100 & sleep 0.5; readlink /proc/$!/exe; kill $!";

fn what_programs_say_and_load_is_the_guests() {
    let pronto = shared();
    let options = ["--arch", "arm64", "--accel", "build", "--mirror", fixtures::mirror()];
    pronto.create("t", TRIXIE_ARM64.tree(), &options);
    let run = |options: &[&str], script: &str| {
        let run = pronto.cmd(["exec"]).args(options).args(["t", "--", "sh", "-c", script]);
        run.limit(Duration::from_secs(400)).run().ok().text().trim().to_owned()
    };
    let sh = |script: &str| run(&[], script);
    let install = |packages: &str| {
        let apt = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq -y install --no-install-recommends";
        sh(&format!("{{ {apt} {packages}; }} >/tmp/apt.log 2>&1 || tail /tmp/apt.log"))
    };
    assert_eq!(install("cmake gcc libc6-dev make pkgconf zlib1g-dev file gettext locales"), "");
    sh("localedef -i de_DE -f UTF-8 de_DE.UTF-8");
    for script in [TOOLS, WORDS] {
        let native = run(&[], &format!("{script}\nreadlink /proc/$$/exe"));
        let emulated = run(&["--accel", "off"], &format!("{script}\nreadlink /proc/$$/exe"));
        let said =
            |text: &str| text.rsplit_once('\n').map(|(said, exe)| (said.to_owned(), exe.starts_with("/run/accel/")));
        let ((native, is_native), (emulated, is_not)) = (said(&native).unwrap(), said(&emulated).unwrap());
        assert!(is_native && !is_not, "one of each kind");
        same(&native, &emulated);
    }

    // Nothing of the guest's is loaded, whatever the environment says.
    let ours = sh(CODE);
    assert!(ours.lines().count() > 2 && ours.lines().all(|file| file.starts_with("/run/accel/")), "{ours}");
    assert_eq!(sh(&format!("LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu {CODE}")), ours);
    // Where this machine's architecture is a foreign one of the guest's, there are libraries that would fit.
    sh("dpkg --add-architecture amd64");
    assert_eq!(install("hello:amd64 libselinux1:amd64 libacl1:amd64"), "");
    assert_eq!(
        sh("hello; dpkg --print-architecture; dpkg --print-foreign-architectures"),
        "Hello, world!\narm64\namd64"
    );
    assert_eq!(sh(CODE), ours);
    let path = "LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu";
    assert_eq!(sh(&format!("export {path}; hello; {CODE}; printenv LD_LIBRARY_PATH")).replace(&ours, "ours"), {
        "Hello, world!\nours\n/usr/lib/x86_64-linux-gnu"
    });

    // What is diverted is native under its new name; what takes its place is what it is.
    let sleep = |path: &str| sh(&format!("sh -c '{SLEEP}' {path} 2>/dev/null")).starts_with("/run/accel/");
    sh("dpkg-divert --quiet --local --rename --divert /usr/bin/sleep.real --add /usr/bin/sleep 2>&1");
    sh("printf '#!/bin/sh\nexec sleep.real \"$@\"\n' >/usr/bin/sleep; chmod 755 /usr/bin/sleep");
    assert!(sleep("/usr/bin/sleep.real") && sleep("/usr/bin/sleep"));
    sh("rm /usr/bin/sleep; dpkg-divert --quiet --local --rename --remove /usr/bin/sleep");
    assert!(sleep("/usr/bin/sleep"));

    // Another build is emulated as soon as it is installed, and works; the build that is known is native again.
    let rebuilt = "cd /root; apt-get -qq download sed; dpkg-deb -R sed_*.deb s; printf '\\001' | dd of=s/usr/bin/sed bs=1 seek=9 conv=notrunc status=none; \
        sed -i 's/^Version: .*/&+local1/' s/DEBIAN/control; dpkg-deb -b s new.deb >/dev/null; dpkg -i new.deb >/dev/null 2>&1; dpkg-query -W -f '${Version}' sed";
    assert!(sh(rebuilt).ends_with("+local1"));
    let code = sh(CODE);
    assert!(code.contains("/usr/bin/sed") && !code.contains("/run/accel"), "{code}");
    sh("dpkg -i /root/sed_*.deb >/dev/null 2>&1");
    assert_eq!(sh(CODE), ours);
    pronto.run(["destroy", "t"]).ok();
    pronto.run(["delete", "t"]).ok();

    // A CPU that the user names is the one that native programs are shown; with ids of its own and without.
    for options in [&[][..], &["--no-userns", "--binfmt", "host"]] {
        let run = pronto.cmd(["run", "--arch", "arm64", "--accel", "tools", "--cpu", "cortex-a53"]).args(options);
        let part = "grep -m1 part /proc/cpuinfo; perl -ne 'print and last if /part/' /proc/cpuinfo";
        let seen = run.arg(TRIXIE_ARM64.tree()).args(["--", "sh", "-c", part]).run().ok().text();
        assert_eq!(seen, "CPU part\t: 0xd03\nCPU part\t: 0xd03\n", "{options:?}");
    }
    let own = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!own.contains("/proc/cpuinfo"), "nothing of it is on the host");
}

/// Panics with the lines that only one of the two has.
#[track_caller]
fn same(native: &str, emulated: &str) {
    let only = |one: &str, other: &str| {
        let there: std::collections::HashSet<&str> = other.lines().collect();
        one.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (more, less) = (only(native, emulated), only(emulated, native));
    assert!(native == emulated, "native: {more:#?}\nemulated: {less:#?}");
}
