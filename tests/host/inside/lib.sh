# What all checks share, and the beginning of each: `bash lib.sh NAME` runs check_NAME. What a newcomer would get wrong: `set -e`
# is on, so a command that fails fails the check, but not inside `if`, `!`, `&&` and `||`; there, say `fail`.

set -eEu -o pipefail
trap 'echo "line $LINENO of ${BASH_SOURCE[0]##*/} (called from line ${BASH_LINENO[0]}): $BASH_COMMAND"' ERR
. /mnt/in/host

fail() { echo "$*"; exit 1; }
skip() { echo "$*"; exit 77; }

# is WHAT GOT WANTED
is() { [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"; }

# eventually SECONDS WHAT COMMAND...
eventually() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "not within the time: $what"
        sleep 0.2
    done
}

# The leader, state and domid of a domain, as `list` shows them.
row() { pronto list --all --format json | jq -r --arg n "$1" --arg k "$2" '.[] | select(.name == $n) | .[$k] // "none"'; }
state() { local s; s=$(row "$1" state); echo "${s:-absent}"; }
# The v2 cgroup of a domain, found from its leader's own place.
group() {
    local path
    path=$(sed -n 's/^0:://p' "/proc/$(row "$1" leader)/cgroup")
    echo "/sys/fs/cgroup${path%/guest/*}"
}
scopes() { systemctl list-units --all --plain --no-legend 'pronto-*.scope' | awk '{ print $1 }'; }

# What a domain could leave behind: what systemd knows of it, and (picture.pl) what the kernel and the file system do.
picture() {
    scopes
    machinectl list --no-legend --no-pager | awk '{ print "machine", $1 }'
    perl /mnt/in/picture.pl
}
before() { picture >/run/before; }
same_again() { picture >/run/after; cmp -s /run/before /run/after; }
nothing_left() {
    local end=$((SECONDS + 15))
    until same_again; do
        if [ $SECONDS -ge $end ]; then
            diff /run/before /run/after || true
            fail "left behind: ${1:-see above}"
        fi
        sleep 0.2
    done
}

# A Debian of this CPU that several checks share; whoever needs it makes it, if those before were not run.
debian() {
    [ "$(state debian)" = absent ] || return 0
    pronto create --name debian /mnt/trees/amd64 memory=256 vcpus=1 'cpus="0"'
}
# One that is ready in a moment, for what breaks it. Its name is the first word.
light() { local name=$1; shift; pronto create --name "$name" "$@" /mnt/trees/light; }
gone() {
    case $(state "$1") in
        absent) ;;
        shut-off) pronto delete "$1" ;;
        *) pronto destroy "$1" && pronto delete "$1" ;;
    esac
}

for file in house domain single crash foreign; do . /mnt/in/$file.sh; done
"check_$1"
