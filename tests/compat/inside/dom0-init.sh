#!/bin/busybox sh
# The first process of the emulated host's own domain: brings up what xl needs, runs what the test has put into the shared directory,
# and powers off, whatever became of that. What a newcomer would get wrong: the console is for people; what is told to the tests are files.
bb=/bin/busybox
$bb mkdir -p /bin /dev/pts /run/lock
$bb --install -s /bin 2>/dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$(echo /usr/lib/xen-*/bin) HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mkdir -p /run/lock /run/xen /run/xenstored
# Xen's scripts write to these by name.
ln -sf /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${n%%:*}" "/dev/${n#*:}"; done
hostname dom0
ip link set lo up
while read -r module; do insmod "$module" 2>/dev/null; done </modules
mount -t xenfs xenfs /proc/xen
echo "dom0: $(uname -srm), capabilities $(cat /proc/xen/capabilities)"

xenstored --pid-file /run/xenstored.pid
tries=0
until xenstore-read -s / >/dev/null 2>&1 || [ $tries = 200 ]; do usleep 100000; tries=$((tries + 1)); done
xen-init-dom0
xenconsoled --log=all --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid
mount -t 9p -o trans=virtio,version=9p2000.L share /mnt || echo "dom0: no shared directory"
read -r up _ </proc/uptime
echo "dom0: ready after $up s"
[ ! -f /mnt/run.sh ] || sh /mnt/run.sh
sync
poweroff -f
