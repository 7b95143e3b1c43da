# The script that is run with xl, and may be run with whatever claims to be like it, by TOOL. Each part is a function; a test names the part and
# the record that it is about.

TOOL=${TOOL:-xl}
PARTS="look configurations life crash names refusals saving"
log() { echo "/var/log/xen/console/guest-$1.log"; }
said() { grep -q "$2" "$(log "$1")"; }
gone() { ! xl domid "$1"; }

# Guests of the script's own, in the plainest form. `guest NAME LINES…` writes /run/NAME.cfg.
guest() {
    file=/run/$1.cfg
    printf 'name = "%s"\ntype = "%s"\nmemory = 96\nvcpus = 1\n' "$1" "$TYPE" >"$file"
    printf 'kernel = "/guest/vmlinuz"\nramdisk = "/guest/initrd"\n' >>"$file"
    shift
    for line; do echo "$line"; done >>"$file"
}

look() {
    step list $TOOL list
    step list-l $TOOL list -l
    step list-v $TOOL list -v
    step list-0 $TOOL list 0
    step info $TOOL info
    step info-one $TOOL info free_memory
    step vm-list $TOOL vm-list
    step vcpu-list $TOOL vcpu-list
    step uptime $TOOL uptime
    step block-list-0 $TOOL block-list 0
    step network-list-0 $TOOL network-list 0
    step domid-0 $TOOL domid Domain-0
    step domname-0 $TOOL domname 0
}

# What pronto wrote for machines of all kinds.
configurations() {
    for file in configs/*.cfg; do
        base=${file##*/}
        step "config-${base%.cfg}" xl -N create -f "/mnt/$file"
    done
}

life() {
    dd if=/dev/zero of=/run/disk.img bs=1k count=64 2>/dev/null
    printf 'SIXTEEN-BYTES-OK' | dd of=/run/disk.img conv=notrunc 2>/dev/null
    brctl addbr xenbr0 && ip link set xenbr0 up
    guest g1 'extra = "console=hvc0 quiet"' 'disk = [ "/run/disk.img,raw,xvda,rw" ]' 'vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0" ]'
    step create-paused $TOOL create -p /run/g1.cfg
    step life-list-paused $TOOL list g1
    step life-domid $TOOL domid g1
    step life-twice $TOOL create /run/g1.cfg
    step life-unpause $TOOL unpause g1
    wait_for 60 said g1 GUEST-READY
    step life-list $TOOL list
    step life-list-v $TOOL list -v g1
    step life-list-l $TOOL list -l g1
    step life-vcpus $TOOL vcpu-list g1
    step life-uptime $TOOL uptime g1
    step life-blocks $TOOL block-list g1
    step life-nics $TOOL network-list g1
    step life-domname $TOOL domname "$(xl domid g1)"
    step life-pause $TOOL pause g1
    sleep 1
    step life-list-pause $TOOL list g1
    # Xen counts pauses: two of them need two of the other.
    step life-pause-again $TOOL pause g1
    step life-unpause-again $TOOL unpause g1
    step life-list-pause-still $TOOL list g1
    step life-unpause-twice $TOOL unpause g1
    step life-list-unpaused $TOOL list g1
    step life-unpause-needless $TOOL unpause g1
    LIMIT=3 step life-console $TOOL console g1
    step life-rename $TOOL rename g1 g2
    step life-renamed $TOOL list g2
    step life-rename-back $TOOL rename g2 g1
    step life-shutdown $TOOL shutdown -w g1
    wait_for 20 gone g1
    step life-list-after $TOOL list
    step life-missing $TOOL list g1
}

# On ARM a kernel's panic is not told to Xen: it hangs, or starts again, as its command line says.
crash() {
    [ "$TYPE" = pv ] || { tell "no crash"; return; }
    guest c1 'extra = "console=hvc0 quiet panic=1 crash"' 'on_crash = "preserve"'
    step crash-create $TOOL create /run/c1.cfg
    wait_for 60 said c1 GUEST-CRASHES
    wait_for 20 sh -c 'xl list c1 | grep -q -- "---sc-"'
    step crash-list $TOOL list c1
    step crash-destroy $TOOL destroy c1
    step crash-gone $TOOL list c1
}

# Names that only a lenient reader of tables can have.
names() {
    guest odd 'extra = "console=hvc0"'
    step names-create $TOOL create -p /run/odd.cfg 'name="two words 5 1 -b---- 1.0"'
    step names-create-long $TOOL create -p /run/odd.cfg 'name="a-name-that-is-longer-than-the-column-it-stands-in-by-far"'
    step names-list $TOOL list
    step names-list-v $TOOL list -v
    step names-list-l $TOOL list -l
    step names-vcpus $TOOL vcpu-list
    step names-uptime $TOOL uptime
    step names-vm-list $TOOL vm-list
    step names-destroy $TOOL destroy 'two words 5 1 -b---- 1.0'
    step names-destroy-long $TOOL destroy a-name-that-is-longer-than-the-column-it-stands-in-by-far
    step names-after $TOOL list
}

refusals() {
    for verb in list pause unpause shutdown reboot destroy console vcpu-list uptime network-list block-list domid; do
        step "no-$verb" $TOOL $verb nosuch
    done
    step no-number $TOOL list 9999
    for verb in pause unpause shutdown destroy console vcpu-list uptime block-list; do
        step "no-number-$verb" $TOOL $verb 9999
    done
    step no-domname $TOOL domname 9999
    step word-domname $TOOL domname words
    step no-words $TOOL destroy
    step no-option $TOOL list -x
    step no-verb $TOOL nosuchverb
    step zero-destroy $TOOL destroy 0
    step zero-pause $TOOL pause 0
    step no-file $TOOL create /nonexistent
    printf 'name = \n' >/run/bad.cfg
    step bad-syntax $TOOL create /run/bad.cfg
    printf 'name = "x"\nmemory = 32\n' >/run/bad.cfg
    step bad-no-kernel $TOOL create /run/bad.cfg
    guest x
    step bad-kernel $TOOL create /run/x.cfg 'kernel="/nonexistent"'
    step bad-memory $TOOL create /run/x.cfg 'memory=100000'
    step refusals-after $TOOL list
}

# Only where Xen can: not on ARM.
saving() {
    xl help save | grep -q Usage || { tell "no saving"; return; }
    guest s1 'extra = "console=hvc0 quiet"'
    step save-create $TOOL create /run/s1.cfg
    wait_for 60 said s1 'COUNT 2'
    step save $TOOL save s1 /run/s1.saved
    step save-list $TOOL list s1
    cp "$(log s1)" records/save-before
    step restore $TOOL restore /run/s1.saved
    rm -f /run/s1.saved
    wait_for 60 sh -c "[ \$(grep -c COUNT $(log s1)) -gt $(grep -c COUNT records/save-before) ]"
    step restore-list $TOOL list s1
    cp "$(log s1)" records/save-after
    step save-destroy $TOOL destroy s1
}

# This ring's own program, which tries pronto's driver on the same xl, and pronto itself.
own_programs() {
    step own-version /run/pronto --version
    LIMIT=240 step own-driver /run/inside inside
}
