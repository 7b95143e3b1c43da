#!/bin/bash
# What the tools of a guest conclude from the CPU that --board gives it: uname, getconf, gcc -mcpu=native, rustc, go and pip, each held against what
# they say on that board.
#
#   contrib/boards.sh PRONTO [BOARD/ARCH ...]       (rpi1/armel rpi2/armhf rpi3/arm64 rpi4/arm64 rpi5/arm64)
#
# What a newcomer would get wrong: the compilers are installed and run emulated, which takes minutes per architecture; they are asked in an
# environment that is empty, because a variable would not reach every process.
set -euo pipefail

pronto=$(realpath "${1:?usage: contrib/boards.sh PRONTO [BOARD/ARCH ...]}")
boards=("${@:2}")
[ ${#boards[@]} -gt 0 ] || boards=(rpi1/armel rpi2/armhf rpi3/arm64 rpi4/arm64 rpi5/arm64)
root=${PRONTO_MATRIX_ROOT:-/var/cache/pronto-matrix} name=boards
[ "$(id -u)" = 0 ] || { echo "boards.sh: booting guests needs root" >&2; exit 1; }
export PRONTO_MIRROR=${PRONTO_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v -- '-security/*$' | head -n 1)}
mkdir -p -m 0700 "$root"

pronto() { "$pronto" --root "$root" "$@"; }
clean() { pronto destroy $name >/dev/null 2>&1 || true; pronto delete $name >/dev/null 2>&1 || true; }
trap clean EXIT

# uname -m, bits, gcc's and rustc's native CPU, GOARCH (GOARM is its package's, whatever the CPU), pip's first platform. On an ARMv6 no compiler
# can tell: QEMU's /proc/cpuinfo has no "CPU part" then; and the LLVM of this rustc does not know the part of a Cortex-A7.
expected() {
    case $1 in
        rpi[01]/armel) echo "armv6l 32 arm10tdmi none arm linux_armv6l" ;;
        rpi2/armhf) echo "armv7l 32 cortex-a7 generic arm linux_armv7l" ;;
        rpi3/arm64) echo "aarch64 64 cortex-a53 cortex-a53 arm64 linux_aarch64" ;;
        rpi4/arm64) echo "aarch64 64 cortex-a72 cortex-a72 arm64 linux_aarch64" ;;
        rpi5/arm64) echo "aarch64 64 cortex-a76 cortex-a76 arm64 linux_aarch64" ;;
    esac
}

ask() {
    pronto exec -i $name -- bash -euo pipefail -s <<END
echo 'deb $PRONTO_MIRROR bookworm main' >/etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install gcc libc6-dev rustc golang-go python3-pip >/dev/null 2>&1
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root bash -c '
    native=\$(gcc -mcpu=native -### -c -x c /dev/null 2>&1 | grep -o -m 1 "mcpu=[a-z0-9-]*" | head -n 1 | cut -d = -f 2)
    rust=\$(echo "pub fn f() {}" | rustc -C target-cpu=native --crate-type lib --emit llvm-ir -o /tmp/f.ll - && grep -o -m 1 "target-cpu.=.[a-z0-9-]*" /tmp/f.ll | grep -o "[a-z0-9-]*\$" | head -n 1)
    pip=\$(pip debug --verbose 2>/dev/null | grep -o -e "-linux_[a-z0-9_]*" | head -n 1)
    echo "\$(uname -m) \$(getconf LONG_BIT) \${native:-none} \${rust:-none} \$(go env GOARCH) \${pip#-}"'
END
}

failed=0
for row in "${boards[@]}"; do
    clean
    pronto --quiet create --board "${row%/*}" --arch "${row#*/}" --name $name debian/bookworm
    said=$(ask) wanted=$(expected "$row")
    if [ "$said" = "$wanted" ]; then echo "$row: $said"; else echo "$row: $said, but the board's are $wanted"; failed=1; fi
done
exit $failed
