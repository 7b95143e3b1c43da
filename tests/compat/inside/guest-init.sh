#!/bin/busybox sh
# The first process of a guest: says that it is up, counts, and does what the words on its kernel's command line ask for.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /bin /sbin
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
$bb --install -s /bin
exec </dev/console >/dev/console 2>&1
echo "GUEST-BEGINS $(cat /proc/cmdline)"
# The kernel runs these when Xen asks for it.
printf '#!/bin/sh\necho GUEST-OFF\n/bin/busybox poweroff -f\n' >/sbin/poweroff
printf '#!/bin/sh\necho GUEST-AGAIN\n/bin/busybox reboot -f\n' >/sbin/reboot
chmod +x /sbin/poweroff /sbin/reboot
while read -r module; do insmod "$module"; done </modules
grep -qw crash /proc/cmdline && { echo GUEST-CRASHES; echo c >/proc/sysrq-trigger; }
sleep 1
[ ! -b /dev/xvda ] || echo "GUEST-DISK $(head -c 16 /dev/xvda)"
[ ! -e /sys/class/net/eth0 ] || echo "GUEST-NIC $(cat /sys/class/net/eth0/address)"
echo GUEST-READY
count=0
while :; do
    sleep 1
    count=$((count + 1))
    echo "COUNT $count"
done &
while :; do setsid cttyhack sh; sleep 1; done
