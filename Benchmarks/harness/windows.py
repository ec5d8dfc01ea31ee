"""How long file systems stand still, against a bare FIFREEZE + FITHAW of the same ones under the same load."""

import json
import os
import statistics
import time

from disks import Disks
from freezing import BareFreezer, clone
from load import SteadyWriters, fill
from measure import has, percentile, run

RATE = 10_000  # writes a second, of all disks together
KINDS = ("ext4", "xfs")
CUTS = {"tracked": "preCopy", "reflinked": "clone", "untracked": "underFreeze"}
BUDGET = 1.5


def window(bench):
    if not has("fio"):
        bench.report.note("skipped: fio is not installed")
        return
    for way in CUTS:
        for count in (2,) if bench.options.smoke else (1, 2):
            with Disks(bench) as disks:
                Window(bench, disks, way, count).measure()


class Window:
    def __init__(self, bench, disks, way, count):
        self.bench, self.disks, self.way, self.options = bench, disks, way, bench.options
        holder = disks.folder
        if way == "reflinked":
            # Twice the size: a copy shares blocks, and each block that is written meanwhile is another.
            outer = disks.sparse(disks.path("outer.raw"), 2 * count * self.options.volume + 1024)
            holder = disks.mount(disks.attach(outer), "xfs", "outer")
        images = [disks.sparse(os.path.join(holder, f"disk{number}.raw"), self.options.volume)
                  for number in range(count)]
        self.devices = [disks.attach(image) for image in images]
        self.mounts = [disks.mount(device, kind, f"mount{number}")
                       for number, (device, kind) in enumerate(zip(self.devices, KINDS))]
        self.files = [os.path.join(mount, "file") for mount in self.mounts]
        for file in self.files:
            fill(file, self.options.load)
        self.sources = images if way == "reflinked" else self.devices
        self.name = f"{way}, {count} disk{'s' if count > 1 else ''} ({' + '.join(KINDS[:count])})"

    def measure(self):
        if self.way == "tracked":
            self.disks.track(self.devices)
        repository = self.disks.path("repository")
        self.bench.strobe(repository, "init", "--quiet")
        freezes = self.options.freezes if self.way != "untracked" else min(self.options.freezes, 5)
        writers = SteadyWriters(self.disks, self.files, self.options.load, RATE)
        points, bare, cloned, lost = [], [], [], 0
        first = self.point(repository, [word for number, source in enumerate(self.sources)
                                        for word in ("--disk", f"disk{number}={source}")])
        if first is None:
            return
        mounts = [system["mountPoint"] for system in first.get("frozen", [])]
        with BareFreezer(self.disks, mounts or self.mounts) as freezer:
            for number in range(freezes):
                writers.check()
                for is_strobe in (True, False) if number % 2 else (False, True):
                    time.sleep(0.1 if self.options.smoke else 0.5)  # both begin with what the load left meanwhile
                    if not is_strobe:
                        bare.append(freezer.measure())
                        if self.way == "reflinked":
                            cloned.append(freezer.measure(lambda: clone(self.sources)))
                        continue
                    point = self.point(repository, [])
                    if point is None or "freezeWindowMilliseconds" not in point:
                        lost += 1
                    else:
                        points.append(point)
        self.report(points, bare, cloned, lost, writers.stop())

    def point(self, repository, words):
        """The JSON of a point; None when it was not taken. What is unexpected is noted."""
        words = ["snapshot", "load", *words, "--json", "--quiet", "--repository", repository]
        if self.way == "untracked":
            words += ["--track", "none", "--max-freeze", "60s"]
        cost = run([self.bench.strobe_program, *words], check=False)
        if cost.status != 0:
            self.bench.report.note(f"{self.name}: exit {cost.status}: {cost.errors.strip()}")
        if cost.status not in (0, 3):
            return None
        point = json.loads(cost.output)
        cuts = {disk.get("cut") for disk in point["disks"]}
        if cuts != {CUTS[self.way]}:
            self.bench.report.note(f"{self.name}: cut {cuts} instead of {CUTS[self.way]}")
        return point

    def report(self, points, bare, cloned, lost, rate):
        if not points:
            self.bench.report.note(f"{self.name}: no point was taken")
            return
        strobe = [point["freezeWindowMilliseconds"] for point in points]
        seconds = statistics.median(point["seconds"] for point in points)
        ratio = statistics.median(strobe) / statistics.median(bare)
        cells = {"freeze window under 10,000 writes/s": self.name,
                 "Strobe: median / 99 % / max": spread(strobe),
                 "bare": spread(bare), "bare with FICLONE": spread(cloned) if cloned else "", "pass s": f"{seconds:.2f}",
                 "points": str(len(points)), "lost": str(lost), "writes/s": f"{rate:.0f}" if rate else ""}
        figures = {"name": self.name, "strobeMilliseconds": strobe, "bareMilliseconds": bare, "bareWithCloneMilliseconds": cloned,
                   "passSeconds": seconds, "lost": lost, "writesPerSecond": rate}
        budget = BUDGET if self.way == "tracked" else None
        self.bench.report.record("Freeze windows in milliseconds", cells, figures, ratio, budget, at_least=False)


def spread(values):
    return " / ".join(f"{value:.1f}" for value in (statistics.median(values), percentile(values, 0.99), max(values)))
