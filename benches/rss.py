#!/usr/bin/env python3
"""The memory of a domain's monitor after a console client and 10 MiB of output.

    rss.py PRONTO-WORD ... -- NAME      for example: rss.py target/release/pronto --root DIR -- web

The domain must run and have a shell. Prints what /proc/PID/status and smaps_rollup say of its monitor, in MiB.
"""
import json
import subprocess
import sys
import time
from pathlib import Path


def field(path, name):
    return next(int(l.split()[1]) for l in Path(path).read_text().splitlines() if l.startswith(name + ":")) / 1024


def main(pronto, name):
    root = Path(pronto[pronto.index("--root") + 1]) if "--root" in pronto else None
    runs = root / "run" if root else Path("/run/pronto")
    domains = root or Path("/var/lib/pronto")
    uuid = json.loads((domains / "domains" / name / "domain.json").read_text())["uuid"]
    monitor = json.loads((runs / "domains" / uuid / "run.json").read_text())["monitor"]
    client = subprocess.Popen([*pronto, "console", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    time.sleep(0.5)
    flood = "head -c 10485760 /dev/zero | tr '\\0' x | fold -w 79 >/dev/console"
    flooder = subprocess.Popen([*pronto, "exec", name, "--", "sh", "-c", flood], stdin=subprocess.DEVNULL)
    seen = 0
    while seen < 10 << 20:
        piece = client.stdout.read1(1 << 16)
        if not piece:
            sys.exit("the console ended early")
        seen += len(piece)
    flooder.wait()
    client.kill()
    client.wait()
    time.sleep(1)
    print(f"RSS {field(f'/proc/{monitor}/status', 'VmRSS'):.1f} MiB, PSS {field(f'/proc/{monitor}/smaps_rollup', 'Pss'):.1f} MiB")


if __name__ == "__main__":
    if "--" not in sys.argv or len(sys.argv) < 4:
        sys.exit(__doc__)
    at = sys.argv.index("--")
    main(sys.argv[1:at], sys.argv[at + 1])
