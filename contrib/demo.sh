#!/bin/bash
# The main job, from nothing to a running guest of another CPU and back: what `sudo make demo` shows.
#
#   contrib/demo.sh [PRONTO]      (the binary; target/release/pronto when none is given)
#
# What a newcomer would get wrong: the first run fetches or builds a Debian of the other CPU, which takes minutes; the second
# finds it in pronto's store and takes seconds. A domain `demo` that a broken run left is replaced.
set -euo pipefail

pronto=$(realpath "${1:-$(dirname "$0")/../target/release/pronto}")
arch=${PRONTO_DEMO_ARCH:-arm64} image=${PRONTO_DEMO_IMAGE:-debian/bookworm}
case $arch in arm64) machine=aarch64 ;; armhf) machine=armv7l ;; *) machine=$arch ;; esac

[ "$(id -u)" = 0 ] || { echo "demo.sh: booting a guest needs root: sudo make demo" >&2; exit 1; }
[ -x "$pronto" ] || { echo "demo.sh: no program at $pronto: run make build first" >&2; exit 1; }

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold= plain=; fi
show() { printf '\n%s# pronto%s%s\n' "$bold" "$(printf ' %s' "$@")" "$plain"; }
pronto() { show "$@"; "$pronto" "$@"; }

# Runs a command whose whole answer must be one word.
expect() {
    local want=$1 got
    shift
    show "$@"
    got=$("$pronto" "$@") || true
    echo "$got"
    [ "$got" = "$want" ] || { echo "demo.sh: that should have been '$want'" >&2; exit 1; }
}

clean_up() {
    "$pronto" destroy demo >/dev/null 2>&1 || true
    "$pronto" delete demo >/dev/null 2>&1 || true
}
"$pronto" destroy demo >/dev/null 2>&1 || true
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin=$SECONDS
pronto create --arch "$arch" --name demo --replace "$image"
pronto list
expect "$machine" exec demo -- uname -m
expect running exec demo -- systemctl is-system-running
expect "" exec demo -- systemctl --failed --no-legend --plain
pronto shutdown -w demo
pronto list --all
printf '\nAn %s Debian booted here, with no failed unit, in %s s.\n' "$arch" $((SECONDS - begin))
echo "Next: pronto --arch $arch $image hostnamectl; pronto console NAME; pronto --help (sudo make install puts it on the PATH)."
