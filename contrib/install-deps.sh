#!/bin/bash
# Installs every package that building, running and testing pronto needs, on Debian 12 or newer.
#
#   contrib/install-deps.sh [--dry-run] [build|run|test|bench|fuzz ...]      (no word: build, run and test)
#
# What a newcomer would get wrong: qemu-user-binfmt is never installed (only pronto may change the host's binfmt registry),
# so nothing here pulls in recommended packages; and qemu-user must be 10 or newer, which Debian 12 does not have of its own:
# then one more source is added, a copy of this machine's own entry for the next release's backports, pinned to that one package.
set -euo pipefail

BUILD="gcc libc6-dev make git ca-certificates"
RUN="systemd systemd-container qemu-user mmdebstrap arch-test debian-archive-keyring xz-utils"
TEST="docker-registry skopeo umoci podman runc buildah tmux curl python3 e2fsprogs util-linux procps zstd pigz qemu-system-x86
    qemu-system-arm qemu-system-misc qemu-guest-agent gcc-aarch64-linux-gnu libc6-dev-arm64-cross fdisk dosfstools mtools qemu-utils
    btrfs-progs xfsprogs squashfs-tools erofs-utils"
BENCH="podman crun runc buildah hyperfine"
FUZZ="g++"
BACKPORTS=trixie-backports            # the release whose backports carry the qemu-user that Debian 12 lacks
QEMU_MIN=10                           # the first qemu-user whose clone(2) satisfies systemd 256 and newer
RUST_MIN=1.85                         # rust-version in Cargo.toml

HERE=$(cd "$(dirname "$0")" && pwd)
LIST=/etc/apt/sources.list.d/pronto-qemu.sources
PIN=/etc/apt/preferences.d/pronto-qemu

dry= groups=()
for word; do
    case $word in
        --dry-run) dry=1 ;;
        build|run|test|bench|fuzz) groups+=("$word") ;;
        -h|--help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "install-deps.sh: unknown word '$word': use --dry-run, build, run, test, bench or fuzz" >&2; exit 2 ;;
    esac
done
[ ${#groups[@]} -gt 0 ] || groups=(build run test)

fail() { echo "install-deps.sh: $*" >&2; exit 1; }
run() { if [ -n "$dry" ]; then printf '+ %s\n' "$*"; else "$@"; fi; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \(([a-z]*)\|[0-9]*:\)\{0,1\}//p'; }
at_least() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$2"; }

command -v apt-get >/dev/null || fail "this is no Debian: install by hand what its BUILD, RUN and TEST lines name"

# Debian's Rust, where the caller brought none that is new enough.
rust_packages() {
    local p
    for p in cargo cargo-web; do
        if at_least "$(candidate $p)" $RUST_MIN; then echo "$p ${p/cargo/rustc}"; return 0; fi
    done
    return 1
}

# The upstream version of the qemu-user that is installed, or would be.
qemu_version() {
    local v
    v=$(dpkg-query -W -f '${Version}' qemu-user 2>/dev/null) && [ -n "$v" ] || v=$(candidate qemu-user)
    echo "${v#*:}"
}

# One deb822 entry: this machine's own first Debian URI and key, with the backports suite; pinned to qemu-user alone.
add_backports() {
    local uri
    if apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -qx $BACKPORTS; then return 0; fi
    uri=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v -e '-security/*$' | head -n 1)
    if [ -z "$uri" ]; then uri=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v -e '-security/*$' | head -n 1); fi
    [ -n "$uri" ] || fail "found no Debian source among this machine's own to copy for $BACKPORTS"
    echo "adding $BACKPORTS, for qemu-user only: $LIST, $PIN"
    if [ -n "$dry" ]; then echo "+ write $LIST and $PIN; apt-get update"; return 0; fi
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
        "$uri" $BACKPORTS /usr/share/keyrings/debian-archive-keyring.gpg >$LIST
    printf 'Package: *\nPin: release n=%s\nPin-Priority: -1\n\nPackage: qemu-user\nPin: release n=%s\nPin-Priority: 990\n' \
        $BACKPORTS $BACKPORTS >$PIN
    apt-get update -qq
}

export DEBIAN_FRONTEND=noninteractive
want=() need_rust= need_qemu=
for g in "${groups[@]}"; do
    case $g in
        build) want+=($BUILD); "$HERE/cargo" --which >/dev/null || need_rust=1 ;;
        run) want+=($RUN) ;;
        test) want+=($TEST) ;;
        bench) want+=($BENCH) ;;
        fuzz) want+=($FUZZ) ;;
    esac
done
missing=()
for p in "${want[@]}"; do installed "$p" || missing+=("$p"); done
case " ${want[*]} " in *" qemu-user "*) installed qemu-user && ! at_least "$(qemu_version)" $QEMU_MIN && need_qemu=1 ;; esac

if [ ${#missing[@]} -gt 0 ] || [ -n "$need_rust$need_qemu" ]; then
    [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "needs root to install: ${missing[*]:-}${need_rust:+ Rust}${need_qemu:+ qemu-user}"
    echo "to install: ${missing[*]:-}${need_rust:+ (Rust $RUST_MIN or newer)}${need_qemu:+ (qemu-user $QEMU_MIN or newer)}"
    run apt-get update -qq
    if [ -n "$need_rust" ]; then
        rust=$(rust_packages) || fail "no Rust $RUST_MIN or newer is packaged for this release: install one by rustup, then run this again"
        missing+=($rust)
    fi
    case " ${missing[*]:-} ${need_qemu:+qemu-user} " in *" qemu-user "*)
        if ! at_least "$(qemu_version)" $QEMU_MIN; then
            add_backports
            missing=($(printf '%s\n' "${missing[@]}" | grep -vx qemu-user || true) "qemu-user/$BACKPORTS")
        fi ;;
    esac
    # qemu-user recommends qemu-user-binfmt, which would register its own handlers: no recommended packages.
    run apt-get install -y -q --no-install-recommends "${missing[@]}"
else
    echo "every package is there already"
fi

if [ -z "$dry" ]; then
    case " ${want[*]} " in *" qemu-user "*)
        at_least "$(qemu_version)" $QEMU_MIN || echo "install-deps.sh: note: qemu-user is still older than $QEMU_MIN: new guests may not boot" >&2 ;;
    esac
    if installed qemu-user-binfmt; then
        echo "install-deps.sh: note: qemu-user-binfmt is installed here (not by this script); pronto's own entries win over its" >&2
    fi
fi
