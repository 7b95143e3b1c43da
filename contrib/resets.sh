#!/bin/bash
# Tries in a running foreign guest which settings of systemd's work under the emulator, one by one, without pronto's drop-in: what the
# table of resets (src/backend/nspawn/emulation.rs) is made from.
#
#   contrib/resets.sh PRONTO NAME                     (NAME: a running domain that may be spoilt)
#
# What a newcomer would get wrong: "fails" alone proves nothing, since a setting may fail on real hardware too (run it on a native
# guest as well); and a setting that systemd does not know is only a warning, so it is told apart by systemd-run's own refusal.
set -uo pipefail
pronto=$(realpath "${1:?usage: contrib/resets.sh PRONTO NAME}")
name=${2:?usage: contrib/resets.sh PRONTO NAME}

"$pronto" exec -i "$name" -- sh -s <<'INSIDE'
rm -f /usr/lib/systemd/system/*.d/zzz-pronto.conf
systemctl daemon-reload
echo "systemd $(systemctl --version | sed -n '1s/systemd \([^ ]*\).*/\1/p') on $(uname -m)"
while read -r setting; do
    said=$(systemd-run --quiet --wait --pipe -p "$setting" /bin/true 2>&1)
    status=$?
    case "$status $said" in
        0*) echo "works   $setting" ;;
        *"Unknown assignment"* | *"Cannot set property"* | *"not supported"*) echo "unknown $setting" ;;
        *) echo "fails   $setting ($status)" ;;
    esac
done <<'SETTINGS'
Nice=1
ReadWritePaths=/tmp
ReadOnlyPaths=/etc
InaccessiblePaths=/srv
ExecPaths=/usr
NoExecPaths=/srv
TemporaryFileSystem=/mnt
BindPaths=/etc:/mnt
BindReadOnlyPaths=/etc:/mnt
MountFlags=slave
MountAPIVFS=yes
PrivateTmp=yes
PrivateTmp=disconnected
PrivateDevices=yes
PrivateMounts=yes
PrivateUsers=yes
PrivatePIDs=yes
PrivateNetwork=yes
PrivateIPC=yes
ProtectSystem=strict
ProtectHome=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectClock=yes
ProtectProc=invisible
ProcSubset=pid
RootDirectory=/
RootEphemeral=yes
LogNamespace=probe
DynamicUser=yes
StateDirectory=probe
RuntimeDirectory=probe
SetCredential=probe:x
LoadCredential=probe:/etc/hostname
ImportCredential=probe
NetworkNamespacePath=/proc/1/ns/net
IPCNamespacePath=/proc/1/ns/ipc
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
SystemCallFilter=@system-service
SystemCallArchitectures=native
CapabilityBoundingSet=CAP_CHOWN
AmbientCapabilities=CAP_CHOWN
KeyringMode=private
User=nobody
PAMName=login
OOMScoreAdjust=100
CPUSchedulingPolicy=batch
IOSchedulingClass=idle
LimitNOFILE=1024
UMask=0077
MemoryMax=1G
TasksMax=100
IPAddressDeny=any
DevicePolicy=closed
Personality=arm64
SETTINGS
INSIDE
