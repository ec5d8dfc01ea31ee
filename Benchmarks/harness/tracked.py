"""Whether a tracked pass takes time with the change or with the disk."""

import json
import os
import random

from disks import Disks

CHANGED = 100  # pieces of 1 MiB
SMALL, HUGE = 10 << 10, 1 << 20  # MiB
BUDGET = 1.5


def change_against_size(bench):
    """100 MiB changed of 1 TiB and of 10 GiB; the devices are unmounted, their files sparse and in memory."""
    with Disks(bench) as disks:
        folder = bench.work.memory
        small, huge = (TrackedDisk(bench, disks, os.path.join(folder, f"sparse-{size}.raw"), size)
                       for size in (SMALL, HUGE))
        def scan():
            """The small disk once more, whole; in a repository of its own, as the tracker counts from another point."""
            return small.snapshot(small.scanned, "--track", "none")
        tracked_huge, tracked_small, scanned = bench.alternate(huge.changed, small.changed, scan)
        what = f"{CHANGED} MiB changed of"
        bench.report.add(f"tracked, {what} 1 TiB", tracked_huge, f"tracked, {what} 10 GiB", tracked_small,
                         tracked_huge.wall / tracked_small.wall, BUDGET, at_least=False)
        bench.report.add(f"tracked, {what} 10 GiB", tracked_small, f"a scan, {what} 10 GiB", scanned,
                         scanned.wall / tracked_small.wall)
        for repository in (small.repository, small.scanned, huge.repository):
            bench.drop(repository)


class TrackedDisk:
    def __init__(self, bench, disks, image, megabytes):
        self.bench, self.megabytes = bench, megabytes
        self.seeds = iter(range(megabytes, megabytes + 1000))
        disks.undo(os.remove, image)
        disks.sparse(image, megabytes)
        self.device = disks.attach(image, direct=False)  # files in memory know no direct I/O
        disks.track([self.device])
        self.repository, self.scanned = bench.repository("in memory"), bench.repository("in memory")
        self.change()
        self.snapshot(self.repository, "--disk", f"disk={self.device}")
        if megabytes == SMALL:
            self.snapshot(self.scanned, "--disk", f"disk={self.device}", "--track", "none")

    def change(self):
        source = random.Random(next(self.seeds))
        with open(self.device, "r+b", buffering=0) as disk:
            for piece in source.sample(range(self.megabytes), CHANGED):
                os.pwrite(disk.fileno(), source.randbytes(1 << 20), piece << 20)
            os.fsync(disk.fileno())

    def changed(self):
        self.change()
        cost = self.snapshot(self.repository)
        disk = json.loads(cost.output)["disks"][0]
        if "scanReason" in disk:
            self.bench.report.note(f"{self.megabytes} MiB: read whole ({disk['readBytes'] >> 20} MiB): {disk['scanReason']}")
        return cost

    def snapshot(self, repository, *words):
        return self.bench.strobe(repository, "snapshot", "sparse", *words, "--json", "--quiet")
