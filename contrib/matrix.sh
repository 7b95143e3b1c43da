#!/bin/bash
# Boots every architecture and release that can be made from Debian packages here, looks at how each behaves, and prints one table;
# with a file as its second word, the table is written there as Markdown (docs/matrix.md).
#
#   contrib/matrix.sh PRONTO [FILE] [ARCH/SUITE ...]
#
# What a newcomer would get wrong: nothing here is skipped in silence. A system that the mirror does not carry, or that does not
# boot, is a row that says so, and the exit status is then 1. Systems are kept in the store of --root ($PRONTO_MATRIX_ROOT,
# /var/cache/pronto-matrix), so that only the first run makes them.
set -uo pipefail

pronto=$(realpath "${1:?usage: contrib/matrix.sh PRONTO [FILE] [ARCH/SUITE ...]}")
file=${2:-}
rows=("${@:3}")
root=${PRONTO_MATRIX_ROOT:-/var/cache/pronto-matrix}
[ ${#rows[@]} -gt 0 ] || rows=(
    amd64/bullseye amd64/bookworm amd64/trixie amd64/sid
    i386/bookworm i386/trixie
    arm64/bullseye arm64/bookworm arm64/trixie arm64/sid
    armhf/bullseye armhf/bookworm armhf/trixie armhf/sid
    armel/bookworm
    riscv64/trixie riscv64/sid
    ppc64el/bookworm ppc64el/sid
    s390x/bookworm s390x/sid
    mips64el/bookworm
    loong64/sid
)
# This machine's own mirror, named: mirrors lag, and one that is named is taken as it is.
export PRONTO_MIRROR=${PRONTO_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v -- '-security/*$' | head -n 1)}
[ "$(id -u)" = 0 ] || { echo "matrix.sh: booting guests needs root" >&2; exit 1; }
mkdir -p -m 0700 "$root"

pronto() { "$pronto" --root "$root" "$@"; }
inside() { pronto exec matrix -- "$@" 2>/dev/null; }
now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.1f", to - from }'; }
clean() { pronto destroy matrix >/dev/null 2>&1; pronto delete matrix >/dev/null 2>&1; }
trap clean EXIT

# Whether the manager of the user ann comes up within some seconds, without a failed unit.
manager_of_ann() {
    local as_ann=(pronto exec -u ann -e XDG_RUNTIME_DIR=/run/user/1000 matrix -- systemctl --user) i
    inside loginctl enable-linger ann
    for i in 1 2 3 4 5 6 7 8 9 10; do
        [ "$("${as_ann[@]}" is-system-running 2>/dev/null)" = running ] && [ -z "$("${as_ann[@]}" --failed --no-legend 2>&1)" ] && return
        sleep 1
    done
    return 1
}

# One behaviour after the other; prints the names of those that fail.
behaviour() {
    local bad=()
    [ "$(inside sh -c 'useradd -m ann 2>/dev/null; install -m 4755 /usr/bin/id /usr/local/bin/setuid-id; su ann -c "/usr/local/bin/setuid-id -u"')" = 0 ] || bad+=(setuid)
    [ "$(inside sh -c 'env -i /bin/uname -m')" = "$(inside uname -m)" ] || bad+=(env)
    [ "$(inside sh -c 'chroot / /bin/echo there')" = there ] || bad+=(chroot)
    inside systemd-run --wait -q /bin/true || bad+=(transient-unit)
    inside sh -c 'printf "[Service]\nType=oneshot\nDynamicUser=yes\nExecStart=/bin/true\n" >/run/systemd/system/later.service; systemctl start later' || bad+=(DynamicUser)
    [ "$(inside sh -c 'i=0; while [ $i -lt 100 ]; do /bin/true & i=$((i+1)); done; wait; echo $i')" = 100 ] || bad+=(processes)
    [ "$(inside sh -c 'ls /usr/share/doc | wc -l')" -gt 10 ] || bad+=(readdir)
    inside sh -c 'perl -e "fork // die; wait; exit 0"' || bad+=(perl)
    inside systemd-run --wait -q -p PrivateTmp=yes -p ProtectSystem=strict /bin/true || bad+=(sandbox)
    manager_of_ann || bad+=(user-manager)
    echo "${bad[*]:-}"
}

# What the emulation layer resets, in few words: the five keys of credentials are one.
resets() {
    [ -f "$1" ] || { echo nothing; return; }
    sed -n 's/^\([A-Z][A-Za-z]*\)=.*/\1/p' "$1" | sed 's/.*Credential.*/credentials/' | awk '!seen[$0]++' | xargs | sed 's/ /, /g'
}

head='| architecture | release | systemd | state | failed units | reset for the emulator | behaviour | ready (s) | stop (s) |'
line='|---|---|---|---|---|---|---|---|---|'
table=("$head" "$line")
wrong=0
echo "$head"
for row in "${rows[@]}"; do
    arch=${row%/*} suite=${row#*/}
    clean
    # Made first, so that what is timed is the boot.
    if ! said=$(pronto --quiet new --arch "$arch" --name matrix "debian/$suite" 2>&1); then
        cells="| $arch | $suite | - | cannot be made: $(echo "$said" | sed -n 's/^  because: //p' | head -n 1 | cut -c1-120) | - | - | - | - | - |"
        wrong=1
    else
        begin=$(now)
        if ! said=$(pronto start matrix 2>&1); then
            cells="| $arch | $suite | - | not ready: $(echo "$said" | grep -v '^console:' | tail -n 1 | cut -c1-120) | - | - | - | - | - |"
            wrong=1
        else
            ready=$(since "$begin")
            state=$(inside systemctl is-system-running)
            failed=$(inside systemctl --failed --no-legend --plain | awk '{print $1}' | xargs)
            version=$(inside systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')
            drop=$root/domains/matrix/emulation/usr/lib/systemd/system/service.d/zzz-pronto.conf
            reset=$(resets "$drop")
            bad=$(behaviour)
            begin=$(now)
            pronto --quiet shutdown -w matrix 2>/dev/null
            stop=$(since "$begin")
            [ "$state" = running ] && [ -z "$failed$bad" ] || wrong=1
            cells="| $arch | $suite | $version | $state | ${failed:-0} | $reset | ${bad:-all right} | $ready | $stop |"
        fi
    fi
    table+=("$cells")
    echo "$cells"
done
if [ -n "$file" ]; then
    {
        echo "# What boots"
        echo
        echo "Made by \`make matrix\` on $(date +%Y-%m-%d): Linux $(uname -r | cut -d- -f1), $(uname -m), $(nproc) CPUs, $("$pronto" --version | head -n 1)," \
            "$(systemd-nspawn --version | head -n 1), $(qemu-aarch64 --version | head -n 1). Every system is Debian's, made from packages" \
            "by \`pronto new debian/RELEASE\`. \"Behaviour\" names what failed of: setuid programs, an empty environment, chroot, transient units," \
            "DynamicUser=, a hundred processes, readdir, perl, a service's sandbox (PrivateTmp=, ProtectSystem=), a user's own manager."
        echo
        echo "\"Reset\" is what the emulation layer takes from services because it fails under this QEMU. Seconds are wall-clock time."
        echo
        printf '%s\n' "${table[@]}"
    } >"$file"
fi
exit $wrong
