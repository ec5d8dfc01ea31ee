"""A test guest with a repository of points of it: takes points, restores them, and compares them with the guest."""

import json
import os
import shutil
import subprocess
import sys
import time

from compare import differences, text
from rig import Failure, die_with_parent, run

GUEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Guest")
sys.path.insert(1, GUEST)
import leftovers  # noqa: E402
from disk import Disk  # noqa: E402
from guest import Guest  # noqa: E402
from restored import examine  # noqa: E402

COLLECTION = "vm"
NAMES = ("os", "data")
# Where the ways differ: images with a raw node, which is reopened; without; with one that is there for that.
KINDS = ("raw", "file", "qcow2", "qcow2-filter")
PATIENCE = 120


def reasons(point):
    """Why disks were read whole, by name; empty where all are increments."""
    return {disk["name"]: disk.get("scanReason") or disk["changeSource"] for disk in point["disks"]
            if "scanReason" in disk or disk["changeSource"] == "scan"}


def way(point):
    """How the guest's writes were kept apart; None where no hypervisor did."""
    return point.get("machine", {}).get("way")


class Run:
    """A snapshot that runs."""

    def __init__(self, machine, words):
        self.output = machine.place.path("stdout")
        self.errors = machine.place.path("stderr")
        self.begin = time.monotonic()
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [machine.program, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                env=machine.environment(), preexec_fn=die_with_parent)
        machine.running = self.process

    def wait(self, limit=PATIENCE):
        """Returns status, standard output, standard error."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"strobe did not end within {limit} s: {self.read(self.errors)}") from None
        return status, self.read(self.output), self.read(self.errors)

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()


class Machine:
    """A guest, its repository, and what Strobe is told of it.

    Attributes:
        way: how points are to be taken; follows from the disks and from `may_pause`.
        is_frozen: whether the agent is to freeze the guest.
    """

    def __init__(self, place, program, cache, name, disks, **more):
        self.place, self.name = place, name
        # A copy: the one that was named may be replaced while the test runs.
        self.program = place.path("strobe")
        if not os.path.exists(self.program):
            shutil.copy2(program, self.program)
        self.repository = place.path(f"{name}-repository")
        self.scratch = place.make(f"{name}-scratch")
        self.restored = place.path(f"{name}-restored")
        self.running = None
        self.is_frozen, self.may_pause = True, True
        self.guest = self.baseline = None
        self.begin(disks, cache=cache, **more)
        self.command("init")
        self.guest.start_writer()

    def begin(self, disks, **more):
        """Boots the guest, and notes what its QEMU has."""
        self.guest = Guest(self.place, disks, name=self.name, **more).boot()
        self.baseline = leftovers.Baseline(self.guest.monitor)

    @property
    def way(self):
        # QEMU before 8.0 shows the past wrongly that way.
        version = self.guest.monitor.call("query-version")["qemu"]["major"]
        if version >= 8 and all(disk.has_raw_node for disk in self.guest.disks):
            return "reopen"
        return "copy-before-write" if self.may_pause else "backup-job"

    def environment(self):
        return {**os.environ, "STROBE_REPOSITORY": self.repository}

    def command(self, *words, check=True):
        return run([self.program, *words], check=check, timeout=PATIENCE, env=self.environment())

    def words(self, scratch=None):
        """Of a snapshot."""
        agent = ["--guest-agent", self.guest.agent_socket] if self.is_frozen else []
        return ["snapshot", COLLECTION, "--qmp", self.guest.monitor_socket, *agent,
                "--freeze", "auto" if self.is_frozen else "none",
                "--pause", "auto" if self.may_pause else "never",
                "--scratch", scratch or self.scratch, "--json", "--quiet"]

    def start(self, scratch=None):
        return Run(self, self.words(scratch))

    def snapshot(self, words=None):
        """Takes a point; returns its JSON."""
        status, output, errors = Run(self, words or self.words()).wait()
        if status not in (0, 3):
            raise Failure(f"snapshot: status {status}: {errors.strip()[-600:]}")
        return json.loads(output)

    def points(self):
        """The identities of the points, oldest first."""
        result = self.command("list", COLLECTION, "--json", check=False)
        if result.returncode != 0:
            return []
        found = json.loads(result.stdout)
        lists = [found] if isinstance(found, list) else [
            value for value in found.values() if isinstance(value, list)]
        return [point["id"] for entries in lists for point in entries if "id" in point]

    def restore(self, point, kind="raw", folder=None):
        """Restores a point; returns the images by the disks' names."""
        folder = folder or self.restored
        shutil.rmtree(folder, ignore_errors=True)
        self.command("restore", f"{point['collection']}@{point['id']}", "--to", folder, "--quiet",
                     *(["--format", kind] if kind != "raw" else []))
        return {disk["name"]: os.path.join(folder, f"{disk['name']}.{kind}") for disk in point["disks"]}

    # What has to hold.

    def expect_consistent(self, point, is_frozen=None):
        """What the point says of itself."""
        is_frozen = self.is_frozen if is_frozen is None else is_frozen
        wanted = "FileSystemConsistent" if is_frozen else "CrashConsistent"
        if point["consistency"] != wanted:
            raise Failure(f"{point['consistency']} instead of {wanted}: {point['consistencyReasons']}")

    def expect_increment(self, point):
        whole = reasons(point)
        if whole or not point.get("parent"):
            raise Failure(f"not an increment: parent {point.get('parent')}, {whole}")

    def expect_restorable(self, point, is_clean, after=None, before=None):
        """The restored disks show one instant, between the marks of the writer."""
        images = self.restore(point)
        verdict = examine(self.guest.cache, [images[name] for name in self.guest.writer_disks])
        verdict.expect(is_clean)
        last = int(verdict.says.split()[0])
        if after and last < after.number or before and last > before.number:
            raise Failure(f"the point has record {last}, the writer was between "
                          f"{after and after.number} and {before and before.number}")
        return verdict

    def expect_tidy(self, generations=1):
        """Nothing is left in QEMU or in the folder for scratch images."""
        self.baseline.expect(self.guest.monitor, generations)
        left = os.listdir(self.scratch)
        if left:
            raise Failure(f"left in {self.scratch}: {left}")

    def checked_point(self, is_increment=True):
        """Takes a point while the guest writes; all of it has to hold. Returns it, with what the writer felt."""
        after = self.guest.mark()
        begin = time.monotonic()
        point = self.snapshot()
        seconds = time.monotonic() - begin
        before = self.guest.mark()
        self.guest.expect_alive()
        self.expect_consistent(point)
        if way(point) != self.way:
            raise Failure(f"taken by {way(point)} instead of {self.way}")
        if is_increment:
            self.expect_increment(point)
        self.expect_tidy()
        self.expect_restorable(point, self.is_frozen, after, before)
        return point, seconds, before.longest_milliseconds

    def compared_point(self):
        """Takes a point of the guest at rest, and compares every byte with what the disks' files hold."""
        self.guest.stop_writer()
        self.guest.rest()
        try:
            point = self.snapshot()
            for name, image in self.restore(point).items():
                truth = self.place.path("truth.raw")
                self.guest.disk(name).copy_raw(truth)
                found = differences(truth, image)
                os.remove(truth)
                if found:
                    raise Failure(f"{name} of {point['id']} differs from the guest's: {text(found)}")
        finally:
            self.guest.go_on()
            self.guest.start_writer()
        self.expect_tidy()
        return point

    def recover(self):
        """After a failure: a guest that obeys, so that the next test has a chance."""
        if self.running and self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        self.guest.kill()
        self.guest.boot()
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.mkdir(self.scratch)
        self.guest.start_writer()

    def remove(self):
        self.guest.remove()
        for folder in (self.repository, self.restored, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)


def disks_of(kind):
    """Two disks, as they are in a guest of that kind: one of KINDS."""
    return [Disk(name, format=kind.split("-")[0].replace("file", "raw"), has_filter=kind.endswith("filter"),
                 is_bare=kind == "file") for name in NAMES]
