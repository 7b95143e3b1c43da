#!/bin/bash
# Compares builds of qemu-user, and their CPU models, by the same program of the same tree.
#
#   benches/qemu.sh TREE QEMU…      TREE: an arm64 Debian's files; QEMU: qemu-aarch64 of any version, the first is the peer
#
# What a newcomer would get wrong: a package of another release need not be installed for it: apt-get download, dpkg -x. And the fastest
# build is of no use to a guest whose systemd it cannot run (`pronto doctor`).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "$0")" && pwd)
tree=$1; shift
work='for (1..40000) { $h{$_ % 97} .= chr(65 + $_ % 26) }'
rows=()
for qemu; do
    version=$("$qemu" --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
    for cpu in neoverse-n1 max; do
        rows+=("$version-$cpu=for i in \$(seq 25); do QEMU_CPU=$cpu '$qemu' -L '$tree' '$tree/usr/bin/perl' -e '$work'; done")
    done
done
"$HERE/bench.py" -r "${ROUNDS:-5}" "${rows[@]}"
