//! Other guests than the one of [`accel`](super::accel): what their native compilers make and say is what their own make and say. What a
//! newcomer would get wrong: a compiler that makes equal objects may still look in other places, so it is asked where it looks, too.

use std::time::Duration;

use crate::common::fixtures::{self, BOOKWORM_ARMHF, Recipe, TRIXIE_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::shared;

cases! {
    Together: armhf_builds_the_same, trixie_builds_the_same;
}

/// Makes objects and programs; what names the compiler's build taken out, they are one hash each.
pub(super) const MAKE: &str = r#"
mkdir -p /root/b /usr/local/include; echo '#define LOCAL 7' >/usr/local/include/local.h; cd /root/b
printf '#include <stdio.h>\n#include <stddef.h>\n#include <local.h>\nint main(void) { printf("%%d %%zu %%s\\n", LOCAL, sizeof(max_align_t), __FILE__); return 0; }\n' >c.c
printf '#include <iostream>\n#include <stdexcept>\nint main() { try { throw std::runtime_error("thrown"); } catch (std::exception &e) { std::cout << e.what() << std::endl; } }\n' >d.cc
gcc -g -O2 -MD -c c.c -o c.o && g++ -g -O2 -MD -c d.cc -o d.o && gcc c.o -o c && g++ d.o -o d
gcc -shared -fPIC -O2 c.c -o c.so && gcc -static -O2 c.c -o cs && gcc -O2 -flto c.c -o cl && gcc -O2 -fsanitize=undefined c.c -o cu
for f in c.o d.o c d c.so cs cl cu; do objcopy -R .comment -R .note.gnu.build-id $f $f.plain; done
sha256sum *.plain *.d"#;

/// Runs them.
pub(super) const RUN: &str = "./c; ./d; ./cs; ./cl; ./cu";

/// What the compiler says of itself (but for what it links to code for graphics processors, which only the guest's own may be built for and is
/// asked to make) and where it looks; which programs and libraries of a build's own it finds; what it makes of parts.
const LOOK: &str = r#"
mkdir -p /root/look && cd /root/look
gcc -dumpmachine; gcc -print-sysroot; gcc -print-multi-lib; gcc -print-libgcc-file-name; gcc -print-search-dirs; gcc -dumpspecs | sed 's/ *%{fopenacc|fopenmp:crtoffload[^}]*}//; s/ *$//' | sha256sum
for l in c c++; do echo | gcc -v -x $l -E - 2>&1 | sed -n '/search starts/,/^End/p'; done
gcc -Q --help=target | grep -e -march= -e -mcpu= -e -mtune= -e -mfloat-abi= -e -mfpu=
printf 'int g(int); int main(void) { return g(3) - 4; }\n' >m.c; printf 'int g(int x) { return x + 1; }\n' >g.c
mkdir -p own lib; for p in ld ar; do printf '#!/bin/sh\necho own $0\nexec /usr/bin/'$p' "$@"\n' >own/$p; chmod 755 own/$p; done
gcc -O2 -flto -c g.c -o slim.o && rm -f libslim.a && gcc-ar rc libslim.a slim.o && gcc -O2 -flto m.c libslim.a -o ms && ./ms && echo slim
gcc -O2 -flto -ffat-lto-objects -c g.c -o fat.o && rm -f lib/libfat.a && ar rc lib/libfat.a fat.o && LIBRARY_PATH=lib gcc m.c -lfat -o mf && ./mf && echo fat
gcc -B/root/look/own m.c g.c -o mo; PATH=/root/look/own:$PATH gcc m.c g.c -o mp; PATH=/root/look/own:$PATH gcc-ar t libslim.a
gcc -O2 -static-pie m.c g.c -o mi && ./mi && gcc -g -O1 -fsanitize=address -c m.c -o ma.o && gcc -fopenmp m.c g.c -o mm && ./mm && echo rest
for f in ms mf mo mp mi ma.o mm; do objcopy -R .comment -R .note.gnu.build-id $f $f.plain; done; sha256sum m*.plain"#;

fn armhf_builds_the_same() {
    // In these two builds of gcc nothing differs here, so the native one guards the stack.
    let more = "cd /root/look; uname -m; bash -c 'echo $HOSTTYPE $MACHTYPE'
        printf 'void f(char *); void g(void) { char b[64]; f(b); }' >g.c; gcc -O2 -fstack-protector-strong -c g.c && objcopy -R .comment g.o && sha256sum g.o";
    let said = builds_the_same(BOOKWORM_ARMHF, "gcc 12.2.0", "g++ libc6-dev", more);
    assert!(said.starts_with("armv7l\narm arm-unknown-linux-gnueabihf\n"), "{said}");
}

fn trixie_builds_the_same() {
    // A plugin of the guest's is built once, by whichever is there, and loaded by the guest's own compiler.
    let more = r#"
mkdir -p /root/plugin && cd /root/plugin
cat >p.cc <<'end'
#include <gcc-plugin.h>
int plugin_is_GPL_compatible;
int plugin_init(struct plugin_name_args *, struct plugin_gcc_version *) { return puts("loaded") < 0; }
end
test -e p.so || g++ -shared -fPIC -I$(gcc -print-file-name=plugin)/include p.cc -o p.so || exit
echo 'int g(int x) { return x + 1; }' >g.c; gcc -fplugin=./p.so -O2 -c g.c -o g.o && sha256sum g.o"#;
    let said = builds_the_same(TRIXIE_ARM64, "gcc 14.2.0", "g++ libc6-dev gcc-14-plugin-dev", more);
    assert!(said.starts_with("loaded\n"), "{said}");
}

/// Builds natively and emulated in one guest with these packages, does `more`, and compares; gives what that said.
fn builds_the_same(guest: Recipe, compiler: &str, packages: &str, more: &str) -> String {
    let (pronto, name) = (shared(), format!("builds-{}-{}", guest.suite, guest.arch));
    let options = ["--arch", guest.arch, "--accel", "build", "--mirror", fixtures::mirror()];
    let out = pronto.create(&name, guest.tree(), &options);
    assert!(out.err().contains(&format!(" and {compiler}")), "{out}");
    let run = |options: &[&str], script: &str| {
        let run = pronto.cmd(["exec"]).args(options).args([&name, "--", "sh", "-c", script]);
        run.limit(Duration::from_secs(400)).run().ok().text().trim().to_owned()
    };
    let install = format!(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq -y install --no-install-recommends {packages} >/dev/null 2>&1; echo $?"
    );
    assert_eq!(run(&[], &install), "0");
    assert!(run(&[], "gcc -v 2>&1").contains("--build=x86_64-linux-gnu"), "it is the native one");
    let compile = format!("{MAKE}\n{RUN}");
    let native = [&compile, LOOK, more].map(|script| run(&[], script));
    let off = ["--accel", "off"];
    assert!(!run(&off, "gcc -v 2>&1").contains("--build=x86_64-linux-gnu"), "it is the guest's own");
    let emulated = [&compile, LOOK, more].map(|script| run(&off, script));
    let own = "slim\nfat\nown /root/look/own/ld\nown /root/look/own/ld\nown /root/look/own/ar\n";
    assert!(emulated[0].contains("thrown") && emulated[1].contains(own), "{emulated:?}");
    for (native, emulated) in native.iter().zip(&emulated) {
        assert_eq!(native, emulated, "byte by byte, but for the compiler's name");
    }
    pronto.run(["destroy", &name]).ok();
    pronto.run(["delete", &name]).ok();
    let [_, _, said] = native;
    said
}
