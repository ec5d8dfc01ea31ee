#!/usr/bin/env python3
"""Measures Strobe side by side with what bounds it and with its peers, in one run.

Every ratio is of medians of runs that alternate between the two sides. Wall seconds are of whole
commands, start-up and flushing included; CPU seconds are user + system of the command itself. What the
kernel's loop threads do is in no command's CPU time, on either side.
"""

import argparse
import json
import os
import platform
import sys

import rows
from data import Workspace
from disks import enter_mount_namespace
from measure import has
from report import Report


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, metavar="MIB", help="size of the disk (4096)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each side; the median counts (3)")
    parser.add_argument("--layers", type=int, default=1000, help="layers of the long chain (1000)")
    parser.add_argument("--points", type=int, default=10000, help="points of the long list (10000)")
    parser.add_argument("--folder", default=".", metavar="DIR",
                        help="on a real disk's file system: window, writer (the current directory)")
    parser.add_argument("--volume", type=int, default=4096, metavar="MIB",
                        help="size of each disk of window and writer (4096)")
    parser.add_argument("--load", type=int, default=512, metavar="MIB", help="how much of it is written to (512)")
    parser.add_argument("--freezes", type=int, default=30, metavar="N", help="points of window (30)")
    parser.add_argument("--seconds", type=int, default=20, metavar="N", help="of each run of writer (20)")
    parser.add_argument("--no-peers", action="store_true", help="leave restic, borg and virtnbdbackup out")
    parser.add_argument("--only", default="", metavar="ROWS", help="a comma-separated choice of: " + ", ".join(rows.ALL))
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that everything still works")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--programs", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.guest_peers = not options.no_peers
    if options.smoke:
        options.size, options.runs, options.layers, options.points = 192, 1, 40, 50
        options.volume, options.load, options.freezes, options.seconds = 384, 32, 3, 1
        options.no_peers = True
    options.folder = os.path.abspath(options.folder)
    # Trackers of its own, so that nobody else's are touched.
    os.environ["STROBE_BPF_ROOT"] = "/sys/fs/bpf/bench"
    if os.geteuid() != 0:
        sys.exit("scripts/bench needs root: it attaches loop devices")
    chosen = [name for name in options.only.split(",") if name] or list(rows.ALL)
    for name in chosen:
        if name not in rows.ALL:
            sys.exit(f"scripts/bench: there are no rows {name}; choose of: {', '.join(rows.ALL)}")

    enter_mount_namespace()
    report = Report(describe(options), judges=not options.smoke)
    bench = rows.Bench(Workspace(), options, report)
    for name in chosen:
        rows.ALL[name](bench)
    report.show()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report.document(), file, indent=2)
    if not report.rows and not report.tables:
        sys.exit("scripts/bench: nothing was measured")


def describe(options):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    peers = [name for name in ("fio", "restic", "borg") if has(name)]
    return (f"{os.cpu_count()} cores of {model}, {memory} GiB, Linux {platform.release()}; "
            f"disk of {options.size} MiB, {options.runs} runs, present: {', '.join(peers) or 'no peer'}")


if __name__ == "__main__":
    main()
