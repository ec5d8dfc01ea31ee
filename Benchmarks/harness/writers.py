"""What Strobe costs a program that writes as fast as it can."""

import os
import statistics

from disks import Disks
from load import Passes, fill, unthrottled
from measure import has

WRITERS = {"4 KiB, random": ("randwrite", "4k", 16), "1 MiB, in sequence": ("write", "1m", 4)}
MODES = ("no tracker", "tracker, no pass", "tracker, passes back to back")
BUDGET = 0.9


def writer(bench):
    if not has("fio"):
        bench.report.note("skipped: fio is not installed")
        return
    with Disks(bench) as disks:
        image = disks.sparse(disks.path("disk.raw"), bench.options.volume)
        device = disks.attach(image)
        file = os.path.join(disks.mount(device, "ext4", "mount"), "file")
        fill(file, bench.options.load)
        for name, kind in WRITERS.items():
            runs = {mode: [] for mode in MODES}
            for _ in range(bench.options.runs):
                for mode in MODES:
                    runs[mode].append(one(bench, disks, device, file, kind, mode))
            report(bench, name, runs)


def one(bench, disks, device, file, kind, mode):
    """fio's figures of one run, and the passes that ran beside it."""
    write = lambda: unthrottled(file, bench.options.load, *kind, bench.options.seconds)
    if mode == MODES[0]:
        return write(), None
    disks.track([device])
    try:
        if mode == MODES[1]:
            return write(), None
        repository = disks.path("repository")
        bench.strobe(repository, "init", "--quiet")
        # The first reads the whole disk; the others what was written.
        bench.strobe(repository, "snapshot", "load", "--disk", f"disk={device}", "--quiet")
        with Passes([bench.strobe_program, "snapshot", "load", "--json", "--quiet", "--repository", repository]) as passes:
            figures = write()
        bench.drop(repository)
        return figures, passes
    finally:
        disks.untrack([device])


def report(bench, name, runs):
    unit = (lambda figures: figures["iops"]) if "random" in name else (lambda figures: figures["bw_bytes"] / (1 << 20))
    middle = {mode: statistics.median(unit(figures) for figures, _ in runs[mode]) for mode in MODES}
    for mode in MODES:
        tail = {share: statistics.median(figures["clat_ns"]["percentile"][f"{share}00000"] for figures, _ in runs[mode]) / 1e6
                for share in ("99.0", "99.9")}
        passes = [passes for _, passes in runs[mode] if passes]
        done = [point for some in passes for point in some.done]
        for failure in [failure for some in passes for failure in some.failed]:
            bench.report.note(f"{name}, {mode}: {failure}")
        ratio = middle[mode] / middle[MODES[0]] if mode != MODES[0] else None
        cells = {"writer": name, "beside": mode, "median": f"{middle[mode]:.0f} {'IOPS' if 'random' in name else 'MiB/s'}",
                 "99 % ms": f"{tail['99.0']:.2f}", "99.9 % ms": f"{tail['99.9']:.2f}",
                 "passes": str(len(done)) if passes else "",
                 "pass s": f"{statistics.median(point['seconds'] for point in done):.2f}" if done else "",
                 "lost": str(sum(len(some.failed) for some in passes)) if passes else ""}
        figures = {"writer": name, "beside": mode, "runs": [unit(figures) for figures, _ in runs[mode]],
                   "latencyMilliseconds": tail, "passes": len(done),
                   "windowMilliseconds": [point.get("freezeWindowMilliseconds") for point in done]}
        bench.report.record("A writer at full speed, one job", cells, figures, ratio, BUDGET if passes else None)
