#!/bin/bash
# Debian source packages built in a foreign guest, once emulated and once with native programs (--accel build), and compared: every ELF
# file must be equal but for .comment and the build-id, and every other file as it is.
#
#   benches/packages.sh [PACKAGE…]      (no word: hello libclone-perl miniupnpc tinyxml2 fribidi jansson bzip2)
#
# Each is built by an ordinary user with dpkg-buildpackage -B (so with fakeroot), and has to pass its own tests. What a newcomer would get
# wrong: it is one domain, started anew with another --accel, and the same paths, so that nothing but the programs differs. PRONTO names
# the program, IMAGE what the guest is, ARCH its architecture, WORK where the store and the results are. MODES="off" builds one side alone;
# what is there is not built again.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
IMAGE=${IMAGE:-debian/bookworm} ARCH=${ARCH:-arm64} MODES=${MODES:-off build}
WORK=${WORK:-/var/tmp/pronto-packages}
program=$(realpath "${PRONTO:-$HERE/../target/release/pronto}")
[ "$(id -u)" = 0 ] || { echo "packages.sh: needs root" >&2; exit 1; }
[ -x "$program" ] || { echo "packages.sh: no program at $program: cargo build --release" >&2; exit 1; }
[ $# -gt 0 ] || set -- hello libclone-perl miniupnpc tinyxml2 fribidi jansson bzip2
mkdir -p "$WORK"
pronto="$program --quiet --root $WORK/store"
name=builder-$ARCH
inside() { $pronto exec "$name" -- bash -ec "$1"; }

if ! $pronto domid "$name" >/dev/null 2>&1; then
    if $pronto list --all --format json | python3 -c 'import json,sys; sys.exit(sys.argv[1] not in [r["name"] for r in json.load(sys.stdin)])' "$name"; then
        $pronto start --accel build "$name"
    else
        $pronto create --name "$name" --arch "$ARCH" --accel build ${MIRROR:+--mirror "$MIRROR"} "$IMAGE"
    fi
fi
inside '
    export DEBIAN_FRONTEND=noninteractive
    id builder >/dev/null 2>&1 || useradd -m builder
    if [ -f /etc/apt/sources.list ]; then sed -n "s/^deb /deb-src /p" /etc/apt/sources.list >/etc/apt/sources.list.d/src.list
    else sed -i "s/^Types: deb$/Types: deb deb-src/" /etc/apt/sources.list.d/*.sources; fi
    apt-get -qq update
    command -v dpkg-buildpackage fakeroot g++ >/dev/null || apt-get -qq -y install --no-install-recommends build-essential fakeroot dpkg-dev >/dev/null 2>&1
    mkdir -p /build/src; chown builder /build /build/src'
for package in "$@"; do
    inside "
        export DEBIAN_FRONTEND=noninteractive
        [ -f /build/src/$package/ready ] && exit
        mkdir -p /build/src/$package; cd /build/src/$package; chown _apt .
        apt-get -qq source -d $package >/dev/null
        apt-get -qq -y build-dep --no-install-recommends --arch-only -P nodoc $package >/dev/null
        touch ready" || { echo "$package: its source or what it needs cannot be had"; exit 1; }
done
$pronto shutdown -w "$name"

# build PACKAGE MODE: CPU seconds, in build.time; the log beside it.
build() {
    inside "
        rm -rf /build/w; mkdir -p /build/w /build/$2/$1; chown builder /build/w /build/$2/$1; cd /build/w
        su builder -c 'dpkg-source -x /build/src/$1/*.dsc p' >/build/$2/$1/log 2>&1; cd p
        export DEB_BUILD_OPTIONS=\"noautodbgsym parallel=2\" DEB_BUILD_PROFILES=nodoc TIMEFORMAT='%R %U %S' LC_ALL=C.UTF-8
        { time su builder -c 'dpkg-buildpackage -B -uc -us' >>/build/$2/$1/log 2>&1; } 2>/build/$2/$1/time
        cp ../*.deb /build/$2/$1/; touch /build/$2/$1/done"
}
for mode in $MODES; do
    $pronto start --accel "$mode" "$name"
    for package in "$@"; do
        if ! inside "[ -f /build/$mode/$package/done ]"; then
            build "$package" "$mode" || echo "$package: does not build ($mode)"
            mkdir -p "$WORK/$ARCH/$mode"
            rm -rf "$WORK/$ARCH/$mode/$package"
            $pronto cp "$name:/build/$mode/$package" "$WORK/$ARCH/$mode/"
            echo "$package $mode: real, user, system seconds: $(tail -n 1 "$WORK/$ARCH/$mode/$package/time")"
        fi
    done
    $pronto shutdown -w "$name"
done
[ -d "$WORK/$ARCH/off" ] && [ -d "$WORK/$ARCH/build" ] || exit 0
bad=0
for package in "$@"; do
    "$HERE/packages.py" "$WORK/$ARCH/off/$package" "$WORK/$ARCH/build/$package" || bad=1
done
exit $bad
