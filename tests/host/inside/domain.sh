# A domain's life where systemd is PID 1: its scope, machined, limits by cgroup v2, and what becomes of it when others end.

check_a_debian_boots() {
    debian
    is "the machine" "$(pronto exec debian -- uname -m)" x86_64
    is "the guest's state" "$(pronto exec debian -- systemctl is-system-running)" running
    is "failed units in the guest" "$(pronto exec debian -- systemctl --failed --plain --no-legend)" ""
    is "its PID 1" "$(pronto exec debian -- cat /proc/1/comm)" systemd
    is "what it sees of cgroups" "$(pronto exec debian -- stat -f -c %T /sys/fs/cgroup)" cgroup2fs
}

check_its_scope_is_delegated() {
    debian
    local scope leader
    scope=$(scopes)
    is "the number of scopes" "$(wc -w <<<"$scope")" 1
    show() { systemctl show -P "$1" "$scope"; }
    is "its slice" "$(show Slice)" machine.slice
    is "its delegation" "$(show Delegate)" yes
    is "its state" "$(show ActiveState)" active
    is "how many processes it may have" "$(show TasksMax)" 16384
    is "its cgroup" "/sys/fs/cgroup$(show ControlGroup)" "$(group debian)"
    leader=$(row debian leader)
    is "the leader's unit" "$(systemctl status -n 0 "$leader" 2>/dev/null | awk 'NR == 1 { print $2 }')" "$scope"
    # Processes stand in leaves only: the scope itself has none, the monitor is in one of its two parts, the guest in the other.
    is "processes in the scope itself" "$(cat "$(group debian)/cgroup.procs")" ""
    is "in the monitor's part" "$(cat "/proc/$(cat "$(group debian)/monitor/cgroup.procs")/comm")" pronto
    grep -qF "$(group debian | sed s,/sys/fs/cgroup,,)/guest/" "/proc/$leader/cgroup"
}

check_machined_knows_it() {
    debian
    eventually 10 "machined lists it" sh -c 'machinectl list --no-legend | grep -q ^pronto-'
    local name
    name=$(machinectl list --no-legend --no-pager | awk '{ print $1 }')
    is "its leader" "$(machinectl show "$name" -p Leader --value)" "$(row debian leader)"
    is "its unit" "$(machinectl show "$name" -p Unit --value)" "$(scopes)"
    is "its class" "$(machinectl show "$name" -p Class --value)" container
    is "its service" "$(machinectl show "$name" -p Service --value)" pronto
    is "its id" "$(machinectl show "$name" -p Id --value)" "$(row debian uuid | tr -d -)"
}

check_limits() {
    debian
    local guest
    guest=$(group debian)/guest
    is "memory.max" "$(cat "$guest/memory.max")" $((256 << 20))
    is "cpu.max" "$(cat "$guest/cpu.max")" "100000 100000"
    is "cpuset.cpus" "$(cat "$guest/cpuset.cpus")" 0
    is "the CPUs that are really used" "$(cat "$guest/cpuset.cpus.effective")" 0
    is "the CPUs in the guest" "$(pronto exec debian -- nproc)" 1
    # More than fits: the one who asks for it dies, not the guest, and not the scope.
    ! pronto exec debian -- perl -e '$x = "x" x (400 << 20); print length $x' || fail "400 MiB fit into 256"
    is "the domain after that" "$(state debian)" running
    is "its scope after that" "$(systemctl is-active "$(scopes)")" active
    is "the guest after that" "$(pronto exec debian -- cat /proc/1/comm)" systemd
}

check_list_is_true() {
    debian
    local fields low high
    used() { awk '$1 == "usage_usec" { print $2 }' "$(group debian)/guest/cpu.stat"; }
    low=$(used)
    fields=$(pronto list debian | tail -n 1)
    high=$(used)
    set -- $fields
    is "Mem" "$3" 256
    is "VCPUs" "$4" 1
    is "State" "$5" -b----
    awk -v t="$6" -v a="$low" -v b="$high" 'BEGIN { exit !(t * 1e6 >= a - 1e5 && t * 1e6 <= b + 1e5) }' ||
        fail "Time(s) is $6, and cpu.stat went from $low to $high"
    is "VCPUs without limits" "$(light plain >&2; row plain vcpus)" "$(nproc)"
    [ "$(row plain memory_mib)" -gt 0 ] || fail "Mem without a limit is $(row plain memory_mib)"
    gone plain
}

check_pause() {
    debian
    pronto exec debian -- sh -c 'while :; do date +%s%N >/run/beat; sleep 0.05; done' &
    eventually 20 "a heart beats" pronto exec debian -- test -s /run/beat
    pronto pause debian
    local guest one
    guest=$(group debian)/guest
    is "frozen" "$(awk '$1 == "frozen" { print $2 }' "$guest/cgroup.events")" 1
    is "the state" "$(state debian)" paused
    is "State" "$(pronto list debian | awk 'END { print $5 }')" --p---
    is "the scope" "$(systemctl is-active "$(scopes)")" active
    one=$(cat "/proc/$(row debian leader)/root/run/beat")
    sleep 1
    is "a paused guest's heart" "$(cat "/proc/$(row debian leader)/root/run/beat")" "$one"
    pronto unpause debian
    is "the state" "$(state debian)" running
    beats() { [ "$(cat "/proc/$(row debian leader)/root/run/beat")" != "$one" ]; }
    eventually 10 "it beats again" beats
    kill %1
    wait || true
}

check_reboot_inside() {
    debian
    local scope old
    scope=$(scopes) old=$(row debian domid)
    pronto exec debian -- systemctl reboot || true
    another() { local id; id=$(row debian domid); [ "$id" != "$old" ] && [ "$id" != none ]; }
    eventually 60 "it has another domid" another
    running() { [ "$(pronto exec debian -- systemctl is-system-running 2>/dev/null)" = running ]; }
    eventually 90 "it runs again" running
    is "its scope" "$(scopes)" "$scope"
    is "its limit" "$(cat "$(group debian)/guest/memory.max")" $((256 << 20))
    only_this() {
        local names
        names=$(machinectl list --no-legend --no-pager | awk '{ print $1 }')
        [ "${names##*-}" = "$(row debian domid)" ] && [ "$(wc -w <<<"$names")" = 1 ] &&
            [ "$(machinectl show "$names" -p Leader --value)" = "$(row debian leader)" ]
    }
    eventually 10 "machined knows the new run, and only that" only_this
}

# What systemd does when the host goes down, or somebody stops the unit: the guest is asked to power off, and does.
check_systemd_stops_it_in_order() {
    debian
    pronto exec debian -- sh -c 'printf "[Service]\nExecStart=/bin/sleep inf\nExecStop=/bin/sh -c \"sleep 1; echo done >/var/in-order\"\n" >/etc/systemd/system/slow.service; systemctl daemon-reload; systemctl start slow'
    timeout 100 systemctl stop "$(scopes)"
    eventually 10 "it is shut off" sh -c '[ "$(pronto list --all --format json | jq -r ".[0].state")" = shut-off ]'
    is "how it ended" "$(jq -r .ended.how /var/lib/pronto/domains/debian/domain.json)" poweroff
    is "what its service wrote on its way" "$(cat /var/lib/pronto/domains/debian/upper/var/in-order)" done
    is "scopes" "$(scopes)" ""
    is "machines" "$(machinectl list --no-legend --no-pager)" ""
}

check_start_and_shutdown() {
    gone debian
    before
    debian
    pronto shutdown -w debian
    is "the state" "$(state debian)" shut-off
    pronto list --all | grep -q '^debian .*---s--'
    pronto start debian
    is "the state" "$(state debian)" running
    is "the limit" "$(cat "$(group debian)/guest/memory.max")" $((256 << 20))
    pronto destroy debian
    is "the state" "$(state debian)" shut-off
    pronto delete debian
    nothing_left
}

# systemd learns of a scope's end a little later than pronto: the next one must not run into it.
check_start_follows_at_once() {
    before
    light quick
    for _ in 1 2 3; do
        pronto shutdown -w quick
        pronto start quick
        pronto destroy quick
        pronto start quick
    done
    gone quick
    nothing_left
}

# What was started from a session outlives it, as everything that is to go on must.
check_the_creators_session_ends() {
    before
    systemd-run --quiet --unit=session --property=KillMode=control-group --property=Type=exec \
        sh -c 'PATH=/mnt/in:$PATH; pronto create --name survivor /mnt/trees/light && touch /run/created && sleep 1000'
    eventually 60 "it is created" test -e /run/created
    systemctl stop session
    sleep 1
    is "the domain" "$(state survivor)" running
    pronto exec survivor -- true
    gone survivor
    nothing_left
}

check_three_at_once() {
    before
    local n pids=()
    for n in 1 2 3; do
        pronto create --name "many$n" /mnt/trees/amd64 & pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n"; done
    is "how many run" "$(pronto list --format json | jq length)" 3
    is "how many scopes there are" "$(scopes | wc -l)" 3
    is "how many machines there are" "$(machinectl list --no-legend --no-pager | wc -l)" 3
    for n in 1 2 3; do is "the hostname" "$(pronto exec "many$n" -- hostname)" "many$n"; done
    for n in 1 2 3; do gone "many$n"; done
    nothing_left
}
