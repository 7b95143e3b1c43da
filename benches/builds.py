#!/usr/bin/env python3
"""The table of builds.sh: lines of package, mode, and user and system time of configure and of make; medians, and ratios."""
import statistics
import sys

rows = {}
for line in open(sys.argv[1]):
    package, mode, *times = line.split()
    user_c, sys_c, user_m, sys_m = map(float, times)
    rows.setdefault(package, {}).setdefault(mode, []).append((user_c + sys_c, user_m + sys_m))
print("| package | step | native amd64 | emulated | accelerated | emulated / native | accelerated / native | emulated / accelerated |")
print("|---|---|---|---|---|---|---|---|")
for package, modes in rows.items():
    for step, name in ((0, "configure"), (1, "make"), (None, "both")):
        of = {m: statistics.median(sum(t) if step is None else t[step] for t in times) for m, times in modes.items()}
        native, slow, fast = (max(of.get(m, float("nan")), 0.001) for m in ("native", "off", "build"))
        print(f"| {package} | {name} | {native:.2f} | {slow:.2f} | {fast:.2f} | {slow / native:.1f}× | {fast / native:.2f}× | {slow / fast:.1f}× |")
