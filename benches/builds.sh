#!/bin/bash
# What builds cost in a guest: native amd64, emulated (ARCH, arm64 or armhf), and the same foreign guest with native programs (--accel build).
# CPU seconds (user and system) of each step, and ratios in the same run. Three use autotools or their own configure, lua5.4 make alone,
# double-conversion (C++) cmake, fribidi meson.
#
#   benches/builds.sh [PACKAGE…]        (no word: hello zlib lua5.4 tar double-conversion fribidi)
#
# What a newcomer would get wrong: it is the same arm64 domain that is emulated and accelerated, started anew with another --accel, so that
# packages, sources and files are the same. PRONTO names the program, IMAGE what the guests are, ROUNDS how often each is built, MIRROR
# where packages come from, if not from what the image says.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
export BENCH_DIR=${BENCH_DIR:-/var/tmp/pronto-bench}
IMAGE=${IMAGE:-debian/bookworm} ARCH=${ARCH:-arm64} ROUNDS=${ROUNDS:-1}
program=$(realpath "${PRONTO:-$HERE/../target/release/pronto}")
[ "$(id -u)" = 0 ] || { echo "builds.sh: needs root" >&2; exit 1; }
[ -x "$program" ] || { echo "builds.sh: no program at $program: cargo build --release" >&2; exit 1; }
mountpoint -q "$BENCH_DIR/disk" || { echo "builds.sh: run setup.sh first" >&2; exit 1; }
pronto="$program --quiet --root $BENCH_DIR/disk/builds"
[ $# -gt 0 ] || set -- hello zlib lua5.4 tar double-conversion fribidi
sources=$BENCH_DIR/disk/sources
mkdir -p "$sources"

# How each is built: `configure` and `make` are timed apart.
configure() {
    case $1 in
        hello | tar) echo "FORCE_UNSAFE_CONFIGURE=1 ./configure" ;;
        zlib) echo "./configure" ;;
        lua5.4) echo "true" ;;
        double-conversion) echo "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON" ;;
        fribidi) echo "meson setup --buildtype=release -Ddocs=false build" ;;
        *) echo "builds.sh: how is '$1' built?" >&2; exit 1 ;;
    esac
}
make_() {
    case $1 in
        lua5.4) echo "make -j2 -C src posix" ;;
        double-conversion) echo "cmake --build build -j2" ;;
        fribidi) echo "ninja -j2 -C build" ;;
        *) echo "make -j2" ;;
    esac
}

exists() { $pronto list --all --format json | python3 -c 'import json,sys; sys.exit(sys.argv[1] not in [r["name"] for r in json.load(sys.stdin)])' "$1"; }
inside() { $pronto exec "$1" -- bash -c "$2"; }
foreign=foreign-$ARCH
for kind in native "$foreign"; do
    exists "$kind" && continue
    arch=amd64 accel=()
    [ "$kind" = native ] || { arch=$ARCH; accel=(--accel build); }
    $pronto create --name "$kind" --arch $arch -v "$sources:/sources" ${MIRROR:+--mirror "$MIRROR"} "${accel[@]}" "$IMAGE"
    inside "$kind" 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends build-essential cmake meson pkg-config >/dev/null 2>&1'
    [ "$kind" != native ] || inside "$kind" 'sed "s/^deb /deb-src /" /etc/apt/sources.list >/etc/apt/sources.list.d/src.list; apt-get -qq update'
    $pronto shutdown -w "$kind"
done

# build DOMAIN PACKAGE: CPU seconds of configure and of make.
build() {
    inside "$1" "
        set -e; rm -rf /root/b; mkdir /root/b; cd /root/b; tar -xf /sources/$2.orig.tar* --strip-components=1
        TIMEFORMAT='%U %S'; export MAKEINFO=true
        { time sh -c '$(configure "$2")' >/root/log 2>&1; } 2>/root/c; { time sh -c '$(make_ "$2")' >>/root/log 2>&1; } 2>/root/m
        cat /root/c /root/m" | tr '\n' ' '
}
$pronto start native
for package in "$@"; do
    ls "$sources/$package".orig.tar* >/dev/null 2>&1 || inside native "cd /tmp && apt-get -qq source -d $package >/dev/null 2>&1 && for f in *.orig.tar.?z*; do case \$f in *.asc) ;; *) cp \$f /sources/$package.orig.tar.\${f##*.} ;; esac; done; rm -f /tmp/*.orig.tar* /tmp/*.dsc /tmp/*.debian.tar*"
done
results=$sources/results-$ARCH
rm -f "$results"
# ROUNDS=0 only prepares.
[ "$ROUNDS" -gt 0 ] || { $pronto shutdown -w native; exit 0; }
for round in $(seq "$ROUNDS"); do
    for mode in native build off; do
        domain=native
        [ $mode = native ] || { domain=$foreign; $pronto start --accel $mode "$domain"; }
        for package in "$@"; do echo "$package $mode $(build "$domain" "$package")" | tee -a "$results"; done
        [ $mode = native ] || $pronto shutdown -w "$domain"
    done
done
$pronto shutdown -w native
"$HERE/builds.py" "$results"
