#!/bin/bash
# Installs every package that building, running and testing pronto needs, on Debian 12 or newer.
#
#   install-deps.sh [--dry-run] [build|run|test|bench ...]      (no word: build, run and test)
#
# What a newcomer would get wrong: qemu-user-binfmt is never installed (only pronto may change the host's binfmt registry),
# so nothing here pulls in recommended packages; and qemu-user must be 10 or newer, which Debian 12 does not have of its own:
# then one more source is added, a copy of this machine's own entry for the next release's backports, pinned to that one package.
set -euo pipefail

BUILD="gcc libc6-dev make git ca-certificates"
RUN="systemd systemd-container qemu-user mmdebstrap arch-test debian-archive-keyring xz-utils"
TEST="docker-registry skopeo umoci tmux curl python3 e2fsprogs util-linux procps zstd pigz"
BENCH="podman crun runc buildah"
BACKPORTS=trixie-backports            # the release whose backports carry the qemu-user that Debian 12 lacks
QEMU_MIN=10                           # the first qemu-user whose clone(2) satisfies systemd 256 and newer
RUST_MIN=1.85                         # rust-version in Cargo.toml

dry= groups=()
for word; do
    case $word in
        --dry-run) dry=1 ;;
        build|run|test|bench) groups+=("$word") ;;
        -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "install-deps.sh: unknown word '$word': use --dry-run, build, run, test or bench" >&2; exit 2 ;;
    esac
done
[ ${#groups[@]} -gt 0 ] || groups=(build run test)

run() { if [ -n "$dry" ]; then printf '+ %s\n' "$*"; else "$@"; fi; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \(([a-z]*)\|[0-9]*:\)\{0,1\}//p'; }

# The cargo that will build: the caller's own (sudo resets PATH), else Debian's.
find_cargo() {
    local home
    home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6)
    for c in "$(command -v cargo || true)" "$home/.cargo/bin/cargo" /usr/lib/rustc-web/bin/cargo /usr/share/cargo-web/bin/cargo; do
        [ -n "$c" ] && [ -x "$c" ] || continue
        v=$("$c" --version 2>/dev/null | cut -d' ' -f2) && dpkg --compare-versions "${v:-0}" ge $RUST_MIN && { echo "$c"; return 0; }
    done
    return 1
}

rust_packages() {
    find_cargo >/dev/null && return 0
    for p in cargo cargo-web; do
        dpkg --compare-versions "$(candidate $p)" ge $RUST_MIN && { echo "$p" "${p/cargo/rustc}"; return 0; }
    done
    echo "install-deps.sh: no Rust $RUST_MIN or newer is packaged for this release: install one by rustup, then run this again" >&2
    return 1
}

# One deb822 entry: this machine's own first Debian URI and key, with the backports suite; pinned to qemu-user alone.
add_backports() {
    local uri key list=/etc/apt/sources.list.d/pronto-qemu.sources pin=/etc/apt/preferences.d/pronto-qemu
    uri=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' 'Origin: Debian' | grep -v -- '-security' | head -n 1 | cut -d' ' -f1)
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -n "$uri" ] || { echo "install-deps.sh: found no Debian source among this machine's own to copy for $BACKPORTS" >&2; return 1; }
    echo "qemu-user here is older than $QEMU_MIN: adding $BACKPORTS, for qemu-user only ($list)"
    [ -n "$dry" ] && { echo "+ write $list and $pin; apt-get update"; return 0; }
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uri" $BACKPORTS "$key" >$list
    printf 'Package: *\nPin: release n=%s\nPin-Priority: -1\n\nPackage: qemu-user\nPin: release n=%s\nPin-Priority: 990\n' $BACKPORTS $BACKPORTS >$pin
    apt-get update -qq
}

qemu_is_new_enough() {
    local v
    v=$(dpkg-query -W -f '${Version}' qemu-user 2>/dev/null) || v=$(candidate qemu-user)
    dpkg --compare-versions "${v#*:}" ge $QEMU_MIN
}

export DEBIAN_FRONTEND=noninteractive
want=() extra=()
for g in "${groups[@]}"; do
    case $g in
        build) want+=($BUILD); extra+=($(rust_packages)) ;;
        run) want+=($RUN) ;;
        test) want+=($TEST) ;;
        bench) want+=($BENCH) ;;
    esac
done
missing=()
for p in "${want[@]}" ${extra[@]+"${extra[@]}"}; do installed "$p" || missing+=("$p"); done

need_qemu=
case " ${want[*]} " in *" qemu-user "*) qemu_is_new_enough || need_qemu=1 ;; esac
if [ ${#missing[@]} -eq 0 ] && [ -z "$need_qemu" ]; then echo "every package is there already"; exit 0; fi

echo "to install: ${missing[*]:-}${need_qemu:+ (qemu-user $QEMU_MIN or newer)}"
run apt-get update -qq
if [ -n "$need_qemu" ] && ! qemu_is_new_enough; then add_backports; missing+=(qemu-user); fi
# qemu-user recommends qemu-user-binfmt, which would register its own handlers: no recommended packages, and a check.
run apt-get install -y -q --no-install-recommends "${missing[@]}"
if [ -z "$dry" ] && installed qemu-user-binfmt; then
    echo "install-deps.sh: note: qemu-user-binfmt is installed here (not by this script); pronto's own entries win over its" >&2
fi
