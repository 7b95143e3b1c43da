#!/bin/bash
# The image that is measured with, and what it comes from: Debian bookworm for amd64 and arm64 in three layers (base, systemd, a file),
# as an OCI index with gzip layers (tag gz) and one with zstd layers (tag zstd), in a docker-registry on 127.0.0.1.
#
# What a newcomer would get wrong: arm64's packages are unpacked by an arm64 dpkg, and podman runs arm64 programs by the host's
# registry, so something must be registered there: if nothing is, pronto's entry is, until teardown.sh.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
export BENCH_DIR=${BENCH_DIR:-/var/tmp/pronto-bench}
PORT=${BENCH_PORT:-5000}
MIRROR=${PRONTO_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v -- -security | sort -u | head -n 1)}
[ "$(id -u)" = 0 ] || { echo "setup.sh: needs root" >&2; exit 1; }
[ -n "$MIRROR" ] || { echo "setup.sh: no Debian mirror among this machine's own: set PRONTO_MIRROR" >&2; exit 1; }
program=$(realpath "${PRONTO:-$HERE/../target/release/pronto}")
[ -x "$program" ] || { echo "setup.sh: no program at $program: cargo build --release" >&2; exit 1; }
mkdir -p "$BENCH_DIR"/{img,registry,disk,mem,log}
echo "$program" >"$BENCH_DIR/program"
if ! arch-test arm64 >/dev/null 2>&1; then
    "$program" binfmt register arm64
    touch "$BENCH_DIR/registered"
fi

if ! mountpoint -q "$BENCH_DIR/disk"; then
    [ -f "$BENCH_DIR/disk.img" ] || { truncate -s 12G "$BENCH_DIR/disk.img"; mkfs.ext4 -q -F "$BENCH_DIR/disk.img"; }
    mount -o loop "$BENCH_DIR/disk.img" "$BENCH_DIR/disk"
fi
mountpoint -q "$BENCH_DIR/mem" || mount -t tmpfs bench "$BENCH_DIR/mem"

tar_of() { tar -C "$1" --numeric-owner --xattrs --xattrs-include='security.*' -cf "$2" .; }

for arch in amd64 arm64; do
    at=$BENCH_DIR/img/$arch
    [ -f "$at/config.tar" ] && continue
    work=$BENCH_DIR/disk/make-$arch
    rm -rf "$work" "$at"
    mkdir -p "$at" "$work"/{lower,upper,work,merged,config/etc}
    mmdebstrap --arch=$arch --variant=minbase --skip=check/qemu --format=directory bookworm "$work/lower" "deb $MIRROR bookworm main"
    mount -t overlay overlay -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" "$work/merged"
    cp /etc/resolv.conf "$work/merged/etc/resolv.conf"
    DEBIAN_FRONTEND=noninteractive chroot "$work/merged" sh -ec '
        apt-get -qq update
        apt-get -qq install --no-install-recommends systemd systemd-sysv dbus iproute2 >/dev/null
        apt-get clean
        rm -rf /var/lib/apt/lists/*'
    umount "$work/merged"
    # What the second layer removed is left in: a whiteout of overlayfs means nothing in a tar.
    find "$work/upper" -type c -delete
    echo bench >"$work/config/etc/hostname"
    tar_of "$work/lower" "$at/base.tar"
    tar_of "$work/upper" "$at/systemd.tar"
    tar_of "$work/config" "$at/config.tar"
    rm -rf "$work"
done

answers() { curl -sf "http://127.0.0.1:$PORT/v2/" >/dev/null; }
if ! answers; then
    cat >"$BENCH_DIR/registry.yml" <<YML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $BENCH_DIR/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$PORT"}
YML
    setsid docker-registry serve "$BENCH_DIR/registry.yml" >"$BENCH_DIR/log/registry" 2>&1 </dev/null &
    echo $! >"$BENCH_DIR/registry.pid"
    for _ in $(seq 50); do answers && break; sleep 0.2; done
    answers || { echo "setup.sh: the registry does not answer: see $BENCH_DIR/log/registry" >&2; exit 1; }
fi
for kind in gz zstd; do
    python3 "$HERE/mkoci.py" $kind "$BENCH_DIR/img" "$BENCH_DIR/layout-$kind"
    skopeo copy -q --all --dest-tls-verify=false "oci:$BENCH_DIR/layout-$kind:$kind" "docker://127.0.0.1:$PORT/debian:$kind"
done
echo "ready: 127.0.0.1:$PORT/debian:gz and :zstd"
