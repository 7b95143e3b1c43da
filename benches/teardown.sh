#!/bin/bash
# Ends what setup.sh started and unmounts what it mounted; with --all removes everything in BENCH_DIR.
set -euo pipefail
BENCH_DIR=${BENCH_DIR:-/var/tmp/pronto-bench}
if [ -f "$BENCH_DIR/registry.pid" ]; then
    pid=$(cat "$BENCH_DIR/registry.pid")
    # The number may be another program's by now.
    case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in docker-registry*"$BENCH_DIR"*) kill "$pid" ;; esac
    rm -f "$BENCH_DIR/registry.pid"
fi
if [ -f "$BENCH_DIR/registered" ]; then
    "$(cat "$BENCH_DIR/program")" binfmt unregister arm64
    rm -f "$BENCH_DIR/registered"
fi
for place in disk mem; do
    if mountpoint -q "$BENCH_DIR/$place"; then umount -R "$BENCH_DIR/$place"; fi
done
[ "${1:-}" != --all ] || rm -rf "$BENCH_DIR"
