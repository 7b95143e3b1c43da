# `run`, without an init: where its cgroup is, and that it leaves nothing; and an image of many layers.

check_run_without_an_init() {
    local status=0 pid dir unit
    before
    pronto run /mnt/trees/light -- sh -c 'echo out; exit 7' >/run/out || status=$?
    is "its exit status" $status 7
    is "what it said" "$(cat /run/out)" out
    ! pronto run /mnt/trees/light -- sh -c 'kill -TERM $$' || fail "it was killed"
    pronto run /mnt/trees/light -- sleep 987654 &
    eventually 20 "it runs" pgrep -fx 'sleep 987654'
    pid=$(pgrep -fx 'sleep 987654')
    dir=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    unit=$(systemctl status -n 0 "$pid" 2>/dev/null | awk 'NR == 1 { print $2 }')
    echo "it is in $dir, which belongs to $unit"
    is "whether its unit is delegated" "$(systemctl show -P Delegate "$unit")" yes
    is "its slice" "$(systemctl show -P Slice "$unit")" machine.slice
    is "what an out-of-memory kill does to the others in that unit" "$(systemctl show -P OOMPolicy "$unit")" continue
    [ "$(cat "$dir/memory.current")" -gt 0 ] || fail "its memory is not accounted"
    is "its row" "$(pronto list --format json | jq -r '.[0] | .state + " " + .backend')" "running direct"
    # systemd reads its units again while it runs, and replaces itself: what was delegated stays ours.
    systemctl daemon-reload
    systemctl daemon-reexec
    [ -d "$dir" ] && is "where it is" "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")" "$dir"
    kill -KILL %1
    wait || true
    eventually 10 "the command has gone with it" sh -c '! pgrep -fx "sleep 987654"'
    is "who is left" "$(pronto list --all --format json)" "[]"
    nothing_left
    is "the next one" "$(pronto run /mnt/trees/light -- echo next)" next
    nothing_left
    time pronto run /mnt/trees/light -- true
}

# Many at the same time, the very first of this boot among them.
check_runs_at_once() {
    before
    systemctl stop pronto-run.service 2>/dev/null || true
    local n pids=()
    for n in 1 2 3 4; do
        pronto run /mnt/trees/light -- sh -c "exit $n" & pids+=($!)
    done
    for n in 1 2 3 4; do
        local status=0
        wait "${pids[n - 1]}" || status=$?
        is "the exit status of number $n" $status $n
    done
    nothing_left
}

# The unit that systemd lends goes when no command has run for a while; not while one does; and comes back for the next one.
check_the_lent_unit_goes() {
    pronto run /mnt/trees/light -- sleep 25
    lent() { systemctl list-units --all --plain --no-legend pronto-run.service | grep -q .; }
    lent || fail "it went before its time"
    gone_again() { ! lent; }
    eventually 60 "the unit has gone" gone_again
    [ ! -e /sys/fs/cgroup/machine.slice/pronto-run.service ] || fail "its cgroup is still there"
    ! pgrep -f __keeper || fail "its keeper is still there"
    is "the next one" "$(pronto run /mnt/trees/light -- echo next)" next
    # One that begins just when the keeper goes: none may be killed, or refused.
    local n end=$((SECONDS + 40))
    until gone_again || [ $SECONDS -ge $end ]; do sleep 0.02; done
    for n in 1 2 3; do is "number $n" "$(pronto run /mnt/trees/light -- echo next)" next; done
}

check_many_layers() {
    before
    local said
    said=$(pronto run oci:/mnt/in/layers:many -- /bin/sh -c 'n=0; for f in /layers/*; do n=$((n + 1)); done; read t </top; echo $n $t; echo new >/top; read t </top; echo $t' | tr '\n' ' ')
    is "what is in it" "$said" "150 150 new "
    nothing_left
}
