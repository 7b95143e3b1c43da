# What is killed, at every step and in the middle. Each check compares the host before and after: no mount, process, cgroup, scope
# or machine may be left, and `list` must be true.

steps() { pronto __fail-points; }

check_create_fails_at_every_step() {
    local step failed=0
    before
    for step in $(steps); do
        if PRONTO_FAIL_AT=$step light broken >/run/said 2>&1; then
            gone broken     # a native guest does not go through this step
            continue
        fi
        grep -q "$step" /run/said || fail "at $step: $(cat /run/said)"
        is "the domain after $step" "$(state broken)" absent
        nothing_left "at $step"
        failed=$((failed + 1))
    done
    [ $failed -ge 12 ] || fail "only $failed steps failed"
}

check_the_creator_is_killed() {
    local moment now
    before
    for moment in 0.05 0.2 0.4 0.7 1 1.5 2; do
        PATH=/mnt/in:$PATH pronto create --name early /mnt/trees/light & sleep $moment
        kill -KILL $! 2>/dev/null || true
        wait $! || true
        # One that still waited for its guest takes it along, which may be seen running for a moment.
        settled() { now=$(state early); [ "$now" != building ] && sleep 2 && [ "$(state early)" = "$now" ]; }
        eventually 20 "a state that lasts, $moment s after the start" settled
        case $now in
            absent) ;;
            running) pronto exec early -- true; gone early ;;
            *) fail "killed after $moment s it is $now" ;;
        esac
        nothing_left "killed after $moment s"
    done
}

# Kills one process of a domain.
kill_one() {
    before
    light victim
    [ -z "${2-}" ] || pronto "$2" victim
    local pid
    pid=$(pgrep -f "$1") || fail "no process is called $1"
    kill -KILL $pid
    none_runs() { [ "$(pronto list --format json 2>/run/said)" = "[]" ]; }
    eventually 15 "no domain runs" none_runs
    is "the domain" "$(state victim)" shut-off
    is "scopes" "$(sleep 1; scopes)" ""
    ! pronto exec victim -- true || fail "it cannot be running"
    pronto start victim
    is "the domain" "$(state victim)" running
    gone victim
    nothing_left "$1 was killed"
}

check_the_monitor_is_killed() { kill_one '^/mnt/in/pronto __monitor'; }
check_nspawn_is_killed() { kill_one '^systemd-nspawn '; }
check_a_paused_one_is_killed() { kill_one '^/mnt/in/pronto __monitor' pause; }
