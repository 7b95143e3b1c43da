# Runs in the host: every check that was chosen, each in a shell of its own with a time limit, and tells how it ended. What a
# newcomer would get wrong: what is told goes to a port of its own; stdout is the console, for people.

export PATH=/mnt/in:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
cd /root || exit 1
until [ -e /dev/virtio-ports/results ]; do sleep 0.1; done
exec 9>/dev/virtio-ports/results
tell() { printf '%s\n' "$*" >&9; }

if ! why=$(pronto --version 2>&1 >/dev/null); then
    # Built on a newer system than this one: its C library is too old.
    tell "refused the program under test does not run here: $(printf '%s' "$why" | tr '\n' ' ')"
    exit 0
fi
# An interpreter from elsewhere, where the host's own packages have none that is new enough. The copy is root's.
[ ! -e /mnt/in/qemu-aarch64 ] || install -m 0755 /mnt/in/qemu-aarch64 /usr/bin/qemu-aarch64
# What the host starts by itself is over when the checks begin.
timeout 60 systemctl is-system-running --wait >/dev/null

while read -r name; do
    tell "begin $name"
    echo "== $name"
    begin=$(date +%s.%N)
    timeout -k 10 280 bash /mnt/in/lib.sh "$name" >/run/check.out 2>&1 </dev/null 9>&-
    status=$?
    seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    case $status in
        0) tell "ok $name $seconds" ;;
        77) tell "skipped $name $(tail -n 1 /run/check.out)" ;;
        *)
            [ $status != 124 ] || echo "it took longer than 280 s" >>/run/check.out
            cat /run/check.out
            tail -c 6000 /run/check.out | tr -d '\r' | sed 's/^/| /' >&9
            tell "FAILED $name $seconds" ;;
    esac
done </mnt/in/checks
tell end
