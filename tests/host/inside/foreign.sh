# Guests of another CPU, and the host's registry of interpreters.

# From Linux 6.7 on a user namespace can have a registry of its own; guests use that unless they are told not to.
own_registry() { printf '%s\n' 6.7 "$(uname -r)" | sort -VC; }

check_arm64_boots() {
    before
    ls /proc/sys/fs/binfmt_misc >/run/registry
    time pronto create --arch arm64 --name foreign /mnt/trees/arm64
    is "the machine" "$(pronto exec foreign -- uname -m)" aarch64
    is "the guest's state" "$(pronto exec foreign -- systemctl is-system-running)" running
    is "failed units in the guest" "$(pronto exec foreign -- systemctl --failed --plain --no-legend)" ""
    if own_registry; then
        is "the host's registry" "$(ls /proc/sys/fs/binfmt_misc)" "$(cat /run/registry)"
    else
        grep -q '^flags: POCF' /proc/sys/fs/binfmt_misc/pronto-arm64
    fi
    pronto shutdown -w foreign
    gone foreign
    nothing_left
}

check_arm64_runs() {
    local status=0
    before
    is "the machine" "$(pronto run --arch arm64 /mnt/trees/arm64 -- uname -m)" aarch64
    pronto run --arch arm64 /mnt/trees/arm64 -- sh -c 'exit 7' || status=$?
    is "its exit status" $status 7
    nothing_left
}

arm64() { pronto run --binfmt host --arch arm64 /mnt/trees/arm64 -- uname -m; }

# Any package that brings an interpreter restarts this service, which empties the registry. What was registered for this boot
# belongs to this boot all the same.
check_systemd_binfmt_restarts() {
    is "before" "$(arm64)" aarch64
    systemctl restart systemd-binfmt
    is "afterwards" "$(arm64)" aarch64
    pronto run --binfmt host --arch arm64 /mnt/trees/arm64 -- sleep 987653 &
    eventually 20 "it runs" pgrep -f 'sleep 987653'
    systemctl restart systemd-binfmt
    [ -e /proc/sys/fs/binfmt_misc/pronto-arm64 ] || fail "what runs already has lost its interpreter"
    kill %1
    wait || true
    is "the services that failed" "$(systemctl --failed --plain --no-legend)" ""
}

check_binfmt_is_durable() {
    pronto binfmt register arm64
    grep -q '^:pronto-arm64:.*:POCF$' /etc/binfmt.d/zz-pronto-arm64.conf
    echo -1 >/proc/sys/fs/binfmt_misc/pronto-arm64
    systemctl restart systemd-binfmt
    grep -q '^enabled' /proc/sys/fs/binfmt_misc/pronto-arm64
    is "a program of that CPU" "$(arm64)" aarch64
    pronto binfmt unregister arm64
    [ ! -e /etc/binfmt.d/zz-pronto-arm64.conf ] && [ ! -e /proc/sys/fs/binfmt_misc/pronto-arm64 ] || fail "it is still there"
    systemctl restart systemd-binfmt
    [ ! -e /proc/sys/fs/binfmt_misc/pronto-arm64 ] || fail "it came back"
}
