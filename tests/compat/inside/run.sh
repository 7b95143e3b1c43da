# Runs in dom0: every part of the script, once with the real xl. What a newcomer would get wrong: nothing is judged here; each command's words,
# stdout, stderr and exit code become files, which the tests read outside.

cd /mnt || exit 1
. ./host
tell() { printf '%s\n' "$*" >>/mnt/results; }
# A record by its name: `step NAME COMMAND WORDS…`, with nothing on stdin, for a minute at most.
step() {
    name=$1
    shift
    echo "$*" >"records/$name.line"
    timeout "${LIMIT:-60}" "$@" </dev/null >"records/$name.out" 2>"records/$name.err"
    echo $? >"records/$name.code"
}
# Waits until a command succeeds: `wait_for SECONDS COMMAND WORDS…`.
wait_for() {
    left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || { echo "NOT WITHIN ITS TIME: $*"; return 1; }
        usleep 200000
    done
}
part() {
    read -r begun _ </proc/uptime
    "$@"
    read -r now _ </proc/uptime
    tell "at $1 $(echo "$begun $now" | awk '{ printf "%.0f", $2 - $1 }')"
    tell "done $1"
}

. ./verbs.sh
for each in $PARTS; do part "$each"; done
if [ -f inside ]; then
    # Executed from memory: the shared directory is slow to read again and again.
    cp inside pronto /run/ && chmod 755 /run/inside /run/pronto
    part own_programs
else
    for each in own_programs; do tell "done $each"; done
fi
tell end
