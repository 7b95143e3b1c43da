#!/usr/bin/env python3
"""Runs commands in turn (A B C A B C ...) and prints medians, and the ratio of each to the first.

    bench.py [-r ROUNDS] [-w WARM-UPS] [-t SECONDS] [--drop] NAME=COMMAND[##PREPARATION] ...

A command is given to `sh -c`. Its preparation runs before each of its rounds and is not timed. --drop empties the page cache
before each. The ratio is the median of the rounds' own ratios, so that a slow minute of the machine hits all alike. A command
that fails is told, and its row is worth nothing; what it said lies in BENCH_DIR/log/NAME.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

LOGS = Path(os.environ.get("BENCH_DIR", "/var/tmp/pronto-bench"), "log")


def measure(name, command, limit):
    """Wall time in s, CPU time of the command and what it waited for in s, peak RSS of its largest process in MiB, status."""
    with open(LOGS / name, "wb") as log:
        begin = time.perf_counter()
        child = subprocess.Popen(
            ["timeout", str(limit), "sh", "-c", command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, child.returncode


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("-r", type=int, default=7)
    parser.add_argument("-w", type=int, default=1)
    parser.add_argument("-t", type=float, default=300)
    parser.add_argument("--drop", action="store_true")
    parser.add_argument("commands", nargs="+")
    given = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    commands = []
    for word in given.commands:
        name, rest = word.split("=", 1)
        command, _, preparation = rest.partition("##")
        commands.append((name, command, preparation))
    rounds = {name: [] for name, _, _ in commands}
    failed = {}
    for number in range(-given.w, given.r):
        for name, command, preparation in commands:
            if preparation:
                subprocess.run(preparation, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if given.drop:
                os.sync()
                Path("/proc/sys/vm/drop_caches").write_text("3\n")
            *figures, status = measure(name, command, given.t)
            if status:
                failed[name] = status
            if number >= 0:
                rounds[name].append(figures)
    print(f"\n{given.r} rounds, load {os.getloadavg()[0]:.2f}{', cold' if given.drop else ''}\n")
    print("| what | median s | min | max | cpu s | peak MiB | ratio |\n|---|---|---|---|---|---|---|")
    first = [figures[0] for figures in rounds[commands[0][0]]]
    for name, _, _ in commands:
        wall, cpu, rss = ([figures[i] for figures in rounds[name]] for i in range(3))
        ratio = statistics.median(mine / other for mine, other in zip(wall, first))
        row = [f"{statistics.median(wall):.3f}", f"{min(wall):.3f}", f"{max(wall):.3f}", f"{statistics.median(cpu):.3f}"]
        row += [f"{statistics.median(rss):.1f}", f"{ratio:.2f}"]
        print("| " + " | ".join([name, *row]) + " |" + (f" FAILED: {failed[name]}" if name in failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
