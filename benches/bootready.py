#!/usr/bin/env python3
"""Boots a tree with plain systemd-nspawn and ends when its init says READY=1, as `pronto create --wait` does.

    bootready.py TREE [NSPAWN-OPTION ...]

The guest is killed afterwards; LIMIT is the time it gets, in s. Prints the time to READY=1.
"""
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time


def main(tree, options):
    with tempfile.TemporaryDirectory(prefix="bootready.") as place, socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM
    ) as notify, open(os.path.join(place, "console"), "wb") as console:
        address = os.path.join(place, "notify")
        notify.bind(address)
        words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes", "--console=pipe"]
        words += [f"--machine=bootready-{os.getpid()}", f"--directory={tree}", *options, "--boot"]
        begin = time.perf_counter()
        nspawn = subprocess.Popen(
            words, env={**os.environ, "NOTIFY_SOCKET": address}, stdin=subprocess.DEVNULL, stdout=console, stderr=console
        )
        end = begin + float(os.environ.get("LIMIT", "300"))
        ready = None
        while ready is None and nspawn.poll() is None and time.perf_counter() < end:
            if select.select([notify], [], [], 0.5)[0] and b"READY=1" in notify.recv(4096).split(b"\n"):
                ready = time.perf_counter() - begin
        # A killed nspawn leaves the guest's init behind, which would go on and slow down all that is measured after it.
        if nspawn.poll() is None:
            with open(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children", encoding="ascii") as children:
                inits = [int(pid) for pid in children.read().split()]
            for pid in [nspawn.pid, *inits]:
                os.kill(pid, signal.SIGKILL)
            nspawn.wait()
    print("not ready" if ready is None else f"{ready:.3f}")
    return 0 if ready is not None else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
