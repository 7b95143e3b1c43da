# The host itself, and that nothing was wrong with it in the end.

check_the_host_is_ordinary() {
    is "PID 1" "$(cat /proc/1/comm)" systemd
    is "the root of the cgroups" "$(stat -f -c %T /sys/fs/cgroup)" cgroup2fs
    ! grep -q ' - cgroup ' /proc/self/mountinfo || fail "there are v1 hierarchies"
    case $(uname -r) in "$KERNEL"*) ;; *) fail "the kernel is $(uname -r)" ;; esac
    is "systemd" "$(systemctl --version | awk 'NR == 1 { print $2 }')" "$SYSTEMD"
    is "the release" "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$SUITE"
    is "the store's file system" "$(stat -f -c %T /var/lib)" ext2/ext3
    is "failed units" "$(systemctl --failed --plain --no-legend)" ""
}

check_doctor_finds_nothing_bad() {
    pronto doctor | tee /run/doctor
    grep -q '^ok *kernel .*systemd is PID 1' /run/doctor
    grep -q '^ok *cgroups .*cgroup v2 at /sys/fs/cgroup$' /run/doctor
    grep -q '^ok *cgroups .*enforced: memory= vcpus= cpus= pause$' /run/doctor
    ! grep -q '^\(bad\|unknown\)' /run/doctor || fail "see above"
}

# The last of all: what systemd and the kernel had to complain about.
check_nothing_was_logged() {
    is "failed units" "$(systemctl --failed --plain --no-legend)" ""
    is "scopes" "$(scopes)" ""
    # Not a complaint of ours: of any transient unit that has lived through a daemon-reload systemd says, when it ends, that it cannot
    # open the unit's file, which it has just removed itself.
    if journalctl -b --no-pager -o cat _PID=1 | grep -v 'Failed to open /run/systemd/transient/' | grep -i 'pronto.*\(fail\|refus\|warn\|unknown\|ignor\|left-over\|remains\)'; then
        fail "systemd complained of a unit of ours"
    fi
    if journalctl -b -k --no-pager -o cat | grep -i 'oops\|BUG:\|general protection\|hung task'; then
        fail "the kernel complained"
    fi
}
