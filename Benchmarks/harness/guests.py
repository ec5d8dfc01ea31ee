"""Strobe beside virtnbdbackup: the same guest of a session libvirtd, which writes all the time."""

import os
import shutil
import statistics
import sys
import time

from data import files
from measure import has, run

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "Tests", "Guest"))
from disk import Disk  # noqa: E402
from libvirt_guest import LibvirtGuest, Session  # noqa: E402
from place import Place  # noqa: E402
from restored import examine  # noqa: E402

NAMES = ("os", "data")
# How often virtnbdrestore may fail.
RETRIES = 3
STEPS = ("first", "again", "5 % changed", "restore")
TABLE = "A guest of libvirt's, two qcow2 disks, no KVM: Strobe beside virtnbdbackup"


class Strobe:
    """Strobe, through libvirt or through a monitor of QEMU's own."""

    def __init__(self, bench, guest, name, words):
        self.program, self.guest, self.name, self.words = bench.strobe_program, guest, name, words
        self.folder = os.path.join(guest.folder, "strobe")

    def call(self, *words):
        """As root: whoever isn't can't start a guardian, and so can't hold the guest still."""
        return run([self.program, *words, "--quiet", "--repository", os.path.join(self.folder, "repository")])

    def begin(self):
        os.mkdir(self.folder)
        os.mkdir(os.path.join(self.folder, "scratch"))
        self.call("init")

    def snapshot(self):
        return self.call("snapshot", "guest", *self.words, "--scratch", os.path.join(self.folder, "scratch"))

    def restore(self):
        """The cost and the images, in the order of the guest's writer: vda, vdb; virtio-disk0, virtio-disk1."""
        target = os.path.join(self.folder, "restored")
        cost = self.call("restore", "guest@latest", "--to", target)
        return cost, [os.path.join(target, name) for name in sorted(os.listdir(target))]


class VirtNBDBackup:
    """virtnbdbackup(1), as its manual has it; LZ4 as Strobe does."""

    name = "virtnbdbackup"

    def __init__(self, guest, report):
        self.guest, self.report = guest, report
        self.folder = os.path.join(guest.folder, "virtnbdbackup")
        self.level = "full"

    def call(self, program, *words, check=True):
        return run(self.guest.session.words(program, *words), self.guest.session.environment, check)

    def begin(self):
        self.level = "full"
        os.mkdir(self.folder)
        self.guest.session.own(self.folder)

    def snapshot(self):
        cost = self.call("virtnbdbackup", "-U", self.guest.session.uri, "-d", self.guest.name, "-l", self.level,
                         "-z", "-o", os.path.join(self.folder, "set"), "-S", self.folder)
        self.level = "inc"
        return cost

    def restore(self):
        target = os.path.join(self.folder, "restored")
        for number in range(RETRIES + 1):
            shutil.rmtree(target, ignore_errors=True)
            cost = self.call("virtnbdrestore", "-U", self.guest.session.uri, "-i",
                             os.path.join(self.folder, "set"), "-o", target, check=number == RETRIES)
            if cost.status == 0:
                break
            # Seen on a loaded machine: it doesn't reach the qemu-nbd that it has just started.
            self.report.note(f"virtnbdrestore failed and was run again: {cost.errors.strip()[-200:]}")
        images = []
        for disk in self.guest.disks:
            raw = os.path.join(target, f"{disk.name}.raw")
            run(["qemu-img", "convert", "-O", "raw", os.path.join(target, os.path.basename(disk.path)), raw])
            images.append(raw)
        return cost, images


class GuestBench:
    """The guest, and what its writer felt of each pass."""

    def __init__(self, bench, place):
        self.bench = bench
        self.megabytes = 96 if bench.options.smoke else 1024
        disks = [Disk(name, megabytes=self.megabytes, format="qcow2", content=self.content(place, name))
                 for name in NAMES]
        self.guest = LibvirtGuest(Session(place), disks).boot()
        self.costs = {}

    def content(self, place, name):
        """A folder of files of /usr, half as large as a disk; each disk has others."""
        top, budget = place.make(f"content-{name}"), self.megabytes << 19
        wanted = NAMES.index(name)
        for number, path in enumerate(files("/usr")):
            size = os.path.getsize(path)
            if number % len(NAMES) == wanted and size <= budget:
                shutil.copyfile(path, os.path.join(top, str(number)))
                budget -= size
        return top

    def felt(self, work):
        """What `work` costs and returns, and what the guest felt: (cost, longest wait ms, rate during, before)."""
        self.guest.mark()
        time.sleep(0.5 if self.bench.options.smoke else 3)
        before = self.guest.mark()
        cost = work()
        during = self.guest.mark()
        return cost, during.longest_milliseconds, during.rate, before.rate

    def change(self):
        """The guest overwrites a twentieth of each disk."""
        for name in NAMES:
            self.guest.command(f"dd if=/dev/urandom of=/disks/{name}/change bs=1M "
                               f"count={self.megabytes // 20} conv=notrunc,fsync")

    def forget(self, tool):
        """Nothing of the tool's stays, in libvirt, in QEMU, on disk."""
        for checkpoint in self.guest.checkpoints():
            self.guest.session.virsh("checkpoint-delete", self.guest.name, checkpoint)
        shutil.rmtree(tool.folder)

    def one(self, tool):
        """All steps of a tool, once."""
        tool.begin()
        for step in STEPS[:3]:
            if step == STEPS[2]:
                self.change()
            self.keep(tool, step, self.felt(tool.snapshot))
        images = []

        def restore():
            cost, found = tool.restore()
            images.extend(found)
            return cost

        self.keep(tool, STEPS[3], self.felt(restore))
        verdict = examine(self.guest.cache, images)
        if not verdict.is_one_instant:
            raise SystemExit(f"{tool.name} restored no single instant: {verdict.says}")
        self.forget(tool)

    def keep(self, tool, step, felt):
        self.costs.setdefault((step, tool.name), []).append(felt)

    def report(self, tools):
        for step in STEPS:
            peer = self.costs.get((step, VirtNBDBackup.name))
            for tool in tools:
                found = self.costs[step, tool.name]
                wall = statistics.median(cost.wall for cost, *_ in found)
                cpu = statistics.median(cost.cpu for cost, *_ in found)
                longest = statistics.median(longest for _, longest, *_ in found)
                share = statistics.median(during / before for *_, during, before in found if before)
                ratio = peer and tool.name != VirtNBDBackup.name and (
                    statistics.median(cost.wall for cost, *_ in peer) / wall) or None
                cells = {"step": step, "by": tool.name, "wall s": f"{wall:.2f}", "CPU s": f"{cpu:.2f}",
                         "MiB": f"{max(cost.memory for cost, *_ in found) >> 20}",
                         "the writer's longest wait, ms": f"{longest:.0f}",
                         "its rate, of that before": f"{share:.2f}"}
                figures = {"step": step, "by": tool.name, "wall": [cost.wall for cost, *_ in found],
                           "cpu": [cost.cpu for cost, *_ in found],
                           "longestMilliseconds": [longest for _, longest, *_ in found],
                           "rates": [[during, before] for *_, during, before in found]}
                self.bench.report.record(TABLE, cells, figures, ratio)


def guests(bench):
    if not has("libvirtd"):
        bench.report.note("skipped: libvirtd is not installed")
        return
    place = Place("bench", 0o711)
    try:
        measured = GuestBench(bench, place)
        guest = measured.guest
        tools = [Strobe(bench, guest, "Strobe, libvirt",
                        ["--libvirt", guest.name, "--connect", guest.session.socket_uri]),
                 Strobe(bench, guest, "Strobe, QMP", ["--qmp", guest.strobe_socket])]
        if has("virtnbdbackup") and bench.options.guest_peers:
            tools.append(VirtNBDBackup(guest, bench.report))
        else:
            bench.report.note("skipped: virtnbdbackup is not installed, or not wanted")
        guest.start_writer()
        for _ in range(bench.options.runs):
            for tool in tools:
                measured.one(tool)
        measured.report(tools)
        bench.report.note("through libvirt the guest is frozen for the cut, by its agent, which libvirt holds; "
                          "through QMP it isn't")
    finally:
        place.clean()
