#!/bin/bash
# Real work in emulated guests: Debian's own source packages built with their test suites, and programs of four languages that start
# threads and processes and use the network, again and again.
#
#   contrib/proofs.sh PRONTO builds ARCH         one package with autotools (hello), one with CMake (json-c)
#   contrib/proofs.sh PRONTO work ARCH           ping, a chroot that debootstrap makes, and builds by apt, pip, cargo, go and npm, which fetch
#                                                what they need from their own registries
#   contrib/proofs.sh PRONTO languages ARCH [N]  Python with an extension in C, Go, Rust and Node, N times each (100)
#
# What a newcomer would get wrong: everything in here is emulated, the compilers too, so it takes a quarter of an hour and more; a
# package's tests are run by its own debian/rules, and a failing one fails the build. The guest is of this machine's own mirror.
set -euo pipefail

pronto=$(realpath "${1:?usage: contrib/proofs.sh PRONTO builds|work|languages ARCH [N]}")
what=${2:?builds, work or languages} arch=${3:?an architecture} times=${4:-100}
root=${PRONTO_MATRIX_ROOT:-/var/cache/pronto-matrix} name=proof-$what-$arch
[ "$(id -u)" = 0 ] || { echo "proofs.sh: booting guests needs root" >&2; exit 1; }
export PRONTO_MIRROR=${PRONTO_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v -- '-security/*$' | head -n 1)}
mkdir -p -m 0700 "$root"

pronto() { "$pronto" --root "$root" "$@"; }
inside() { pronto exec -i "$name" -- bash -euo pipefail -s; }
clean() { pronto destroy "$name" >/dev/null 2>&1 || true; pronto delete "$name" >/dev/null 2>&1 || true; }
trap clean EXIT
clean
pronto create --arch "$arch" --name "$name" debian/bookworm

builds() {
    inside <<END
echo 'deb $PRONTO_MIRROR bookworm main' >/etc/apt/sources.list
echo 'deb-src $PRONTO_MIRROR bookworm main' >>/etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install build-essential fakeroot dpkg-dev >/dev/null 2>&1
apt-get -qq -y --no-install-recommends build-dep hello json-c >/dev/null 2>&1
useradd -m builder
for source in hello json-c; do
    begin=\$(date +%s)
    if su builder -c "mkdir -p ~/\$source && cd ~/\$source && apt-get -qq source \$source >/dev/null && cd \$source-*/ && dpkg-buildpackage -us -uc -b" >/root/\$source.log 2>&1; then
        said="built"
    else
        said="FAILED"
        tail -n 30 /root/\$source.log
    fi
    echo "$arch \$source: \$said in \$((\$(date +%s) - begin)) s; tests: \$(grep -E -c '^PASS: ' /root/\$source.log || true) passed by make check, \$(grep -E '% tests passed' /root/\$source.log | head -n 1)"
    [ "\$said" = built ]
done
END
}

languages() {
    inside <<END
echo 'deb $PRONTO_MIRROR bookworm main' >/etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install gcc libc6-dev python3-dev python3-setuptools python3-pip python3-wheel golang-go rustc nodejs >/dev/null 2>&1
mkdir -p /root/py /root/go && cd /root
cat >py/ext.c <<'C'
#include <Python.h>
static PyObject *add(PyObject *self, PyObject *args) { long a, b; if (!PyArg_ParseTuple(args, "ll", &a, &b)) return NULL; return PyLong_FromLong(a + b); }
static PyMethodDef methods[] = {{"add", add, METH_VARARGS, ""}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "ext", NULL, -1, methods};
PyMODINIT_FUNC PyInit_ext(void) { return PyModule_Create(&module); }
C
cat >py/setup.py <<'P'
from setuptools import setup, Extension
setup(name="ext", version="1", ext_modules=[Extension("ext", ["ext.c"])])
P
pip install --quiet --break-system-packages --no-build-isolation --no-index ./py
cat >prog.py <<'P'
import ext, socket, subprocess, threading
assert ext.add(40, 2) == 42
server = socket.create_server(("127.0.0.1", 0))
def serve():
    peer, _ = server.accept(); peer.sendall(peer.recv(4)); peer.close()
threads = [threading.Thread(target=serve)] + [threading.Thread(target=lambda: sum(range(20000))) for _ in range(4)]
for t in threads: t.start()
client = socket.create_connection(server.getsockname()); client.sendall(b"ping"); assert client.recv(4) == b"ping"
for t in threads: t.join()
assert subprocess.run(["/bin/echo", "child"], capture_output=True).stdout == b"child\n"
P
cat >go/main.go <<'G'
package main

import (
	"net"
	"os"
	"os/exec"
	"sync"
)

func must(err error) {
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	var group sync.WaitGroup
	group.Add(1)
	go func() { defer group.Done(); peer, err := listener.Accept(); must(err); b := make([]byte, 4); peer.Read(b); peer.Write(b); peer.Close() }()
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() { defer group.Done(); n := 0; for j := 0; j < 20000; j++ { n += j } }()
	}
	client, err := net.Dial("tcp", listener.Addr().String())
	must(err)
	client.Write([]byte("ping"))
	b := make([]byte, 4)
	client.Read(b)
	group.Wait()
	out, err := exec.Command("/bin/echo", "child").Output()
	must(err)
	if string(b) != "ping" || string(out) != "child\n" { os.Exit(2) }
}
G
(cd go && go build -o ../prog-go main.go)
cat >prog.rs <<'R'
use std::{io::{Read, Write}, net::{TcpListener, TcpStream}, process::Command, thread};
fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || { let (mut peer, _) = listener.accept().unwrap(); let mut b = [0; 4]; peer.read_exact(&mut b).unwrap(); peer.write_all(&b).unwrap(); });
    let workers: Vec<_> = (0..4).map(|n| thread::spawn(move || (0..20000u64).fold(n, |a, b| a ^ b))).collect();
    let mut client = TcpStream::connect(address).unwrap();
    let mut b = [0; 4];
    client.write_all(b"ping").unwrap(); client.read_exact(&mut b).unwrap();
    server.join().unwrap(); for w in workers { w.join().unwrap(); }
    assert_eq!((&b, Command::new("/bin/echo").arg("child").output().unwrap().stdout.as_slice()), (b"ping", &b"child\n"[..]));
}
R
rustc -O -o prog-rs prog.rs
cat >prog.js <<'J'
const { Worker, isMainThread } = require('worker_threads'), net = require('net'), { execFileSync } = require('child_process');
if (!isMainThread) { let n = 0; for (let i = 0; i < 20000; i++) n += i; return; }
const server = net.createServer(peer => peer.pipe(peer)).listen(0, '127.0.0.1', () => {
  const client = net.connect(server.address().port, '127.0.0.1', () => client.write('ping'));
  client.once('data', data => { if (String(data) !== 'ping') process.exit(2); client.destroy(); server.close(); });
});
new Worker(__filename).on('exit', code => { if (code) process.exit(3); });
if (String(execFileSync('/bin/echo', ['child'])) !== 'child\n') process.exit(4);
J
for program in "python3 prog.py" ./prog-go ./prog-rs "node prog.js"; do
    bad=0 begin=\$(date +%s)
    for n in \$(seq $times); do timeout 60 \$program || { bad=\$((bad + 1)); echo "run \$n of \$program: status \$?"; }; done
    echo "$arch \$program: $times runs, \$bad bad, \$((\$(date +%s) - begin)) s"
    [ \$bad = 0 ] || failed=1
done
[ -z "\${failed:-}" ]
END
}

work() {
    # Where a proxy opens TLS, the host trusts its authority, and the guest's tools have to.
    pronto --quiet cp /etc/ssl/certs/ca-certificates.crt "$name:/root/trusted.pem"
    inside <<END
export SSL_CERT_FILE=/root/trusted.pem PIP_CERT=/root/trusted.pem NODE_EXTRA_CA_CERTS=/root/trusted.pem CURL_CA_BUNDLE=/root/trusted.pem
echo 'deb $PRONTO_MIRROR bookworm main' >/etc/apt/sources.list
echo 'deb-src $PRONTO_MIRROR bookworm main' >>/etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive HOME=/root
try() {
    local what=\$1 begin=\$(date +%s); shift
    if "\$@" >/root/log 2>&1 </dev/null; then echo "$arch \$what: well, \$((\$(date +%s) - begin)) s"; else failed=1; tail -n 20 /root/log; echo "$arch \$what: FAILED"; fi
}
installs() { apt-get -qq -y --no-install-recommends install "\$@"; }
apt-get -qq update
try "apt-get install" installs ca-certificates curl iputils-ping debootstrap build-essential fakeroot dpkg-dev
useradd -m builder
# Where the host's ping sockets are closed to guests (pronto doctor says so), nobody can ping over its network.
try "ping as a user" su builder -c "ping -c 2 -i 0.2 127.0.0.1"
try "apt-get build-dep" apt-get -qq -y --no-install-recommends build-dep hostname
try "apt-get source --build" su builder -c "cd ~ && apt-get -qq source --build hostname"
# In a user namespace nobody may make device nodes, which debootstrap wants, unless it takes the system for a container of LXC's.
try "debootstrap" env container=lxc debootstrap --no-check-gpg --variant=minbase bookworm /srv/chroot $PRONTO_MIRROR
try "chroot" sh -c '[ "\$(chroot /srv/chroot /usr/bin/env -i /bin/uname -m)" = "\$(uname -m)" ] && chroot /srv/chroot /usr/bin/dpkg --audit && chroot /srv/chroot apt-get -qq -y install hello && chroot /srv/chroot hello'
try "pip's packages" installs python3-pip python3-dev
try "pip install of a source with C" pip install --quiet --break-system-packages --no-binary :all: markupsafe
try "… which is the compiled one" python3 -c 'import markupsafe._speedups'
try "cargo's packages" installs cargo
mkdir -p /root/crate/src
# cargo of this release would clone the whole index first.
try "fetching crates" sh -c 'mkdir -p /root/crates && cd /root/crates && for c in fnv-1.0.7 unicode-xid-0.2.4; do curl -sSf https://static.crates.io/crates/\${c%-*}/\$c.crate | tar xz; done'
printf '[package]\nname = "crate"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\nfnv = { path = "../crates/fnv-1.0.7" }\nunicode-xid = { path = "../crates/unicode-xid-0.2.4" }\n' >/root/crate/Cargo.toml
cat >/root/crate/src/main.rs <<'R'
use std::hash::Hasher;
use unicode_xid::UnicodeXID;
fn main() {
    let mut hash = fnv::FnvHasher::default();
    hash.write(b"a");
    println!("{:x} {}", hash.finish(), 'a'.is_xid_start());
}
R
try "cargo build with dependencies" sh -c 'cd /root/crate && cargo build --quiet --release && [ "\$(target/release/crate)" = "af63dc4c8601ec8c true" ]'
try "go's packages" installs golang-go
mkdir -p /root/module && printf 'module m\n\ngo 1.19\n' >/root/module/go.mod
printf 'package m\n\nimport "testing"\n\nfunc TestM(t *testing.T) { if testing.Short() { t.Skip() } }\n' >/root/module/m_test.go
try "go build and test" sh -c 'cd /root/module && go vet . && go test -count 1 .'
try "npm's packages" installs npm
mkdir -p /root/node && cd /root/node
try "npm install" sh -c 'npm init -y && npm install --no-audit --no-fund left-pad@1.3.0 semver@7.3.8 && node -e "process.exit(require(\"semver\").gt(\"1.2.3\", \"1.0.0\") ? 0 : 1)"'
[ -z "\${failed:-}" ]
END
}

"$what"
