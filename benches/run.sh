#!/bin/bash
# The rows of docs/benchmarks.md, each with its peer in the same run.
#
#   benches/run.sh [oneshot] [create] [ready] [install] [cpu] [pull] [disk] [pullrss] [list] [rss]      (no word: all of them)
#
# What a newcomer would get wrong: the peer stands first, so the ratio in pronto's row is pronto's time by the peer's.
# PRONTO names the program, ROUNDS how often each is run, PODMAN_OPTIONS what podman needs on this host.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
export BENCH_DIR=${BENCH_DIR:-/var/tmp/pronto-bench}
PORT=${BENCH_PORT:-5000} ROUNDS=${ROUNDS:-9}
program=$(realpath "${PRONTO:-$HERE/../target/release/pronto}")
[ "$(id -u)" = 0 ] || { echo "run.sh: needs root" >&2; exit 1; }
[ -x "$program" ] || { echo "run.sh: no program at $program: cargo build --release" >&2; exit 1; }
mountpoint -q "$BENCH_DIR/disk" || { echo "run.sh: run setup.sh first" >&2; exit 1; }
disk=$BENCH_DIR/disk store=$disk/pronto image=127.0.0.1:$PORT/debian:gz
pronto="$program --quiet --root $store"
podman="podman --root $disk/podman --runroot $disk/podman-run --storage-driver overlay --cgroup-manager cgroupfs"
# A podman whose own limits are above the caller's, or whose crun does not know this host's cgroups, is told so here: for example
# PODMAN_OPTIONS="--runtime runc" PODMAN_RUN_OPTIONS="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024".
podman="$podman ${PODMAN_OPTIONS:-}" podman_run="--network none ${PODMAN_RUN_OPTIONS:-}"
bench() { "$HERE/bench.py" -r "$ROUNDS" "$@"; }
title() { printf '\n## %s\n' "$*"; }

# An image is present for one architecture under a tag of its own: podman keeps one per name.
both_have() {
    $pronto pull --arch "$1" "$image"
    $podman pull -q --tls-verify=false --arch "$1" "$image" >/dev/null
    $podman tag "$image" "localhost/bench:$1"
}
end_all() { for n in $($pronto list --format json | python3 -c 'import json,sys; print(*(r["name"] for r in json.load(sys.stdin)))'); do $pronto destroy "$n"; done; }

oneshot() {
    for arch in arm64 amd64; do
        both_have $arch
        title "one command, image present, $arch: pronto run / podman run"
        bench "podman=$podman run --rm $podman_run --arch $arch --pull never localhost/bench:$arch /bin/true" \
            "pronto=$pronto run --network none --arch $arch $image /bin/true"
    done
}

create() {
    both_have arm64
    title "start without waiting, image present, arm64: pronto create --no-wait / podman run -d"
    bench "podman=$podman run -d --name bench $podman_run --arch arm64 --pull never localhost/bench:arm64 /bin/sleep 1000##$podman rm -f -t 0 bench" \
        "pronto=$pronto create --no-wait --rm --name bench --arch arm64 $image##$pronto destroy bench"
    $podman rm -f -t 0 bench >/dev/null 2>&1 || true
    $pronto destroy bench || true
}

# The same layers, the same emulation drop-ins, an overlay of the same kind; nspawn's own filter and readiness.
ready() { ready_of arm64; ready_of amd64; }

ready_of() {
    local arch=$1 layers upper=$BENCH_DIR/disk/ready
    $pronto pull --arch "$arch" "$image"
    $pronto new --name ready --arch "$arch" "$image" 2>/dev/null || true
    layers=$(python3 - "$store" <<'PY'
import json, os, sys
domain = f"{sys.argv[1]}/domains/ready"
record = json.load(open(f"{domain}/domain.json"))
stored = [f"{sys.argv[1]}/layers/{l['stored']}" for l in reversed(record["artifact"]["layers"])]
print(":".join([d for d in [f"{domain}/emulation"] if os.path.isdir(d)] + stored))
PY
)
    title "to READY=1, $arch: pronto create --wait / plain systemd-nspawn (same layers, drop-ins, overlay, --notify-ready)"
    local fresh="umount $upper/m; rm -rf $upper; mkdir -p $upper/u $upper/w $upper/m; mount -t overlay o -o lowerdir=$layers,upperdir=$upper/u,workdir=$upper/w $upper/m; systemd-id128 new >$upper/m/etc/machine-id"
    bench "nspawn=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 $HERE/bootready.py $upper/m --setenv=QEMU_RTSIG_MAP='32 61 2,34 34 27'##$fresh" \
        "pronto=$pronto create --wait --rm --name bench --arch $arch $image##$pronto destroy bench"
    $pronto destroy bench || true
    $pronto delete ready
    umount "$upper/m"
    rm -rf "$upper"
}

# The same packages, fetched before the clock starts; the peer is a domain that is kept.
install() {
    local kind options
    $pronto pull --arch amd64 "$image"
    title "apt-get install of a compiler in a booted domain, amd64: thrown away (--rm) / kept"
    for kind in kept lost; do
        options=; [ $kind = kept ] || options=--rm
        $pronto create $options --name $kind --arch amd64 "$image"
        $pronto exec $kind -- sh -c 'apt-get -qq update && apt-get -qq -y -d install --no-install-recommends gcc make perl git python3-minimal' >/dev/null 2>&1
    done
    local remove="exec KIND -- sh -c 'apt-get -qq -y purge gcc make git python3-minimal cpp binutils && apt-get -qq -y autoremove && dpkg --configure -a' >/dev/null 2>&1"
    local add="exec KIND -- sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-download install --no-install-recommends gcc make perl git python3-minimal' >/dev/null 2>&1"
    bench "kept=$pronto ${add/KIND/kept}##$pronto ${remove/KIND/kept}" "lost=$pronto ${add/KIND/lost}##$pronto ${remove/KIND/lost}"
    $pronto destroy lost
    $pronto destroy kept
    $pronto delete kept
}

# What programs of the guest cost under the CPU model that pronto takes by itself, and under QEMU's own choice.
cpu() {
    local kind options
    $pronto pull --arch arm64 "$image"
    title "programs in a booted domain, arm64: the default CPU model / --cpu max"
    for kind in max default; do
        options=; [ $kind = default ] || options="--cpu max"
        $pronto create $options --rm --name $kind --arch arm64 "$image"
    done
    local work="exec KIND -- sh -c 'for i in \$(seq 40); do perl -e \"for (1..40000) { \\\$h{\\\$_ % 97} .= chr(65 + \\\$_ % 26) }\"; done; find /usr | sort | sha256sum'"
    bench "max=$pronto ${work/KIND/max}" "default=$pronto ${work/KIND/default}"
    $pronto destroy max
    $pronto destroy default
}

pull() {
    local oci=$disk/oci bundle=$disk/bundle kind from peers
    for kind in gz zstd; do
        from=127.0.0.1:$PORT/debian:$kind
        title "cold pull to a ready tree, arm64, $kind layers: pronto pull / skopeo copy + umoci unpack, podman pull + image mount"
        peers=("podman=$podman pull -q --tls-verify=false --arch arm64 $from && $podman image mount $from##$podman image umount -a -f; $podman rmi -a -f")
        # Debian's umoci knows gzip only.
        [ $kind = zstd ] || peers=("skopeo+umoci=skopeo copy -q --override-arch arm64 --override-os linux --src-tls-verify=false docker://$from oci:$oci:t && umoci unpack --image $oci:t $bundle##rm -rf $oci $bundle" "${peers[@]}")
        peers+=("pipe=$HERE/pipe.sh 127.0.0.1:$PORT/debian $kind arm64 $disk/pipe##rm -rf $disk/pipe")
        bench --drop "${peers[@]}" "pronto=$program --quiet --root $disk/cold pull --arch arm64 $from##rm -rf $disk/cold"
    done
    title "cold pull to a ready tree, arm64: pronto, zstd layers / gzip layers"
    bench --drop "gzip=$program --quiet --root $disk/cold pull --arch arm64 127.0.0.1:$PORT/debian:gz##rm -rf $disk/cold" \
        "zstd=$program --quiet --root $disk/cold pull --arch arm64 127.0.0.1:$PORT/debian:zstd##rm -rf $disk/cold"
    $podman image umount -a -f >/dev/null 2>&1 || true
    rm -rf "$oci" "$bundle" "$disk/cold" "$disk/pipe"
}

# A disk of 2 GiB, three quarters of it the image's own files again and again, packed as people pack them: in blocks, and as one.
disk_images() {
    local work=$disk/image blocks
    mkdir -p "$work/tree"
    if [ ! -f "$work/one.img.xz" ]; then
        for n in 1 2 3 4 5 6; do mkdir "$work/tree/$n"; tar -C "$work/tree/$n" -xf "$BENCH_DIR/img/arm64/base.tar"; done
        mv "$work/tree/1"/* "$work/tree"
        rm -f "$work/blocks.img"
        truncate -s 2G "$work/blocks.img"
        mkfs.ext4 -q -F -d "$work/tree" "$work/blocks.img"
        cp --sparse=always "$work/blocks.img" "$work/one.img"
        xz -k -f -1 -T2 --block-size=24MiB "$work/blocks.img"
        xz -k -f -1 -T1 "$work/one.img"
        rm -rf "$work/tree" "$work/one.img" "$work/blocks.img"
    fi
    for blocks in blocks one; do
        title "a disk image of 2 GiB, xz in $blocks, to a domain that can boot: pronto pull / xz -dc into a file"
        bench --drop "xz=xz -dc -T0 $work/$blocks.img.xz >$work/out##rm -f $work/out" \
            "pronto=$program --quiet --root $disk/cold pull $work/$blocks.img.xz##rm -rf $disk/cold"
    done
    rm -rf "$work/out" "$disk/cold"
}

# Peak RSS is the fourth column.
pullrss() {
    title "memory of a pull: layers of 200 MB (gzip, zstd); one of 1 GiB"
    if ! curl -sf "http://127.0.0.1:$PORT/v2/large/manifests/t" >/dev/null; then
        local oci=$disk/large
        mkdir -p "$disk/large-tree" && head -c 1G /dev/urandom >"$disk/large-tree/noise"
        tar -C "$disk/large-tree" -cf "$disk/large.tar" .
        umoci init --layout "$oci" && umoci new --image "$oci:t" && umoci raw add-layer --image "$oci:t" "$disk/large.tar"
        skopeo copy -q --dest-tls-verify=false "oci:$oci:t" "docker://127.0.0.1:$PORT/large:t"
        rm -rf "$oci" "$disk/large.tar" "$disk/large-tree"
    fi
    bench "gzip=$program --quiet --root $disk/cold pull --arch arm64 127.0.0.1:$PORT/debian:gz##rm -rf $disk/cold" \
        "zstd=$program --quiet --root $disk/cold pull --arch arm64 127.0.0.1:$PORT/debian:zstd##rm -rf $disk/cold" \
        "large=$program --quiet --root $disk/cold pull --arch amd64 127.0.0.1:$PORT/large:t##rm -rf $disk/cold"
    rm -rf "$disk/cold"
}

list() {
    both_have arm64
    title "list of ten that run: pronto list / podman ps"
    for n in 0 1 2 3 4 5 6 7 8 9; do
        $podman run -d --name "bench$n" $podman_run --arch arm64 --pull never localhost/bench:arm64 /bin/sleep 10000 >/dev/null
        $pronto create --no-wait --rm --name "bench$n" --arch arm64 "$image"
    done
    sleep 20
    bench "podman=$podman ps" "pronto=$pronto list"
    for n in 0 1 2 3 4 5 6 7 8 9; do $podman rm -f -t 0 "bench$n" >/dev/null; done
    end_all
}

rss() {
    $pronto pull --arch arm64 "$image"
    title "a monitor's memory after a console client and 10 MiB of output"
    $pronto create --rm --name bench --arch arm64 "$image"
    "$HERE/rss.py" $pronto -- bench
    $pronto destroy bench
}

printf '%s, %s CPUs, Linux %s, %s, %s, %s\n' "$($program version)" "$(nproc)" "$(uname -r)" \
    "$(systemd-nspawn --version | head -n 1)" "$(podman --version)" "$(skopeo --version)"
[ $# -gt 0 ] || set -- oneshot create ready install cpu pull disk pullrss list rss
for row; do
    case $row in
        disk) disk_images ;;
        oneshot|create|ready|install|cpu|pull|pullrss|list|rss) $row ;;
        *) echo "run.sh: no row '$row': oneshot create ready install cpu pull disk pullrss list rss" >&2; exit 2 ;;
    esac
done
