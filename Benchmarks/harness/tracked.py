"""Whether a tracked pass takes time with the change or with the disk."""

import json
import os
import random

from disks import Disks
from load import fill
from measure import has

PIECES = 100  # of 1 MiB, that change
SMALL, HUGE = 10 << 10, 1 << 20  # MiB
BUDGET = 1.5


def change_against_size(bench):
    """100 MiB changed of 1 TiB and of 10 GiB, unmounted. The large one is sparse, the small one full, so that
    a scan of it reads it."""
    if not has("fio"):
        bench.report.note("skipped: fio is not installed")
        return
    small_size = 256 if bench.options.smoke else SMALL
    with Disks(bench) as disks:
        small, huge = TrackedDisk(bench, disks, small_size), TrackedDisk(bench, disks, HUGE)
        fill(small.device, small_size)
        for disk in (small, huge):
            disk.first(disk.repository)
        # A repository of its own, as the tracker counts from a point of the other.
        scanned = disks.path("scanned")
        small.first(scanned, "--track", "none")
        tracked_huge, tracked_small, scan = bench.alternate(
            huge.changed, small.changed, lambda: small.snapshot(scanned, "--track", "none"))
        what = f"{PIECES} MiB changed of"
        bench.report.add(f"tracked, {what} {huge.size}", tracked_huge, f"tracked, {what} {small.size}", tracked_small,
                         tracked_huge.wall / tracked_small.wall, BUDGET, at_least=False)
        bench.report.add(f"tracked, {what} {small.size}", tracked_small, "the same, a scan", scan,
                         scan.wall / tracked_small.wall)


class TrackedDisk:
    def __init__(self, bench, disks, megabytes):
        self.bench, self.megabytes = bench, megabytes
        self.size = next(f"{megabytes >> shift} {unit}" for shift, unit in ((20, "TiB"), (10, "GiB"), (0, "MiB")) if megabytes >> shift)
        self.seeds = iter(range(megabytes, megabytes + 1000))
        self.device = disks.attach(disks.sparse(disks.path(f"disk-{megabytes}.raw"), megabytes))
        disks.track([self.device])
        self.repository = disks.path(f"repository-{megabytes}")

    def first(self, repository, *words):
        self.bench.strobe(repository, "init", "--quiet")
        self.snapshot(repository, "--disk", f"disk={self.device}", *words)

    def changed(self):
        source = random.Random(next(self.seeds))
        with open(self.device, "r+b", buffering=0) as disk:
            for piece in source.sample(range(self.megabytes), PIECES):
                os.pwrite(disk.fileno(), source.randbytes(1 << 20), piece << 20)
            os.fsync(disk.fileno())
        cost = self.snapshot(self.repository)
        disk = json.loads(cost.output)["disks"][0]
        if "scanReason" in disk:
            self.bench.report.note(f"{self.size}: read whole ({disk['readBytes'] >> 20} MiB): {disk['scanReason']}")
        elif self.bench.options.smoke or disk["changedBytes"] >> 20 != PIECES:
            self.bench.report.note(f"{self.size}: {disk['changedBytes'] >> 20} MiB changed, {disk['readBytes'] >> 20} MiB read")
        return cost

    def snapshot(self, repository, *words):
        return self.bench.strobe(repository, "snapshot", "disk", *words, "--json", "--quiet")
