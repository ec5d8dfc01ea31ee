"""The commands whose system calls are made to fail (faults.py), and what has to hold after each fault.

A new command is added to SCENARIOS, with a function that makes its plan (upkeep.py)."""

import collections
import json
import os
import shutil
import time

from checks import check
from injection import KILL, OF_MEMORY, Tracer
from objects import expect_nothing_useless, leftovers
from rig import FITHAW, Failure, freeze_ioctl, run
from upkeep import Plan, Program, World, collect_all, compile_library, digest

RECORDS = "/run/strobe/frozen"
# What the name of a file that is being restored ends with (Sources/BlockDevices/PartialFile.swift).
PARTIAL = ".strobe-partial"


def snapshot(bench):
    return Plan("snapshot", ["snapshot", "a", "--json", "--quiet", "--workers=1"], takes="a")


def first(bench):
    """Of a collection that isn't there yet."""
    source = bench.world.collections["new"][0]
    return Plan("snapshot", ["snapshot", "new", "--json", "--quiet", "--workers=1",
                             f"--disk={source.name}={source.path}"], takes="new")


def frozen(bench):
    """With file systems on the disks, which are frozen."""
    return Plan("snapshot", ["snapshot", "f", "--json", "--quiet", "--workers=1"], takes="f")


def restore(bench):
    name, point = bench.world.pairs()[1]
    return Plan("restore", ["restore", f"{name}@{point}", "--to", bench.world.restored, "--overwrite",
                            "--quiet", "--workers=1"], reads=(name, point))


def device(bench):
    """A restore to a block device."""
    name, point = [pair for pair in bench.world.pairs() if pair[0] == "b"][0]
    plan = Plan("restore", ["restore", f"{name}@{point}", f"--disk=b-device={bench.target}",
                            "--quiet", "--workers=1"])
    plan.target = bench.world.book[name][point]["b-device"]
    return plan


def delete(bench):
    chosen = bench.world.pairs()[2:4]
    return Plan("delete", ["delete", *(f"{name}@{point}" for name, point in chosen)], deletes=chosen)


def prune(bench):
    points = list(bench.world.book["a"])
    return Plan("prune", ["prune", "a", "--keep-last=2"],
                deletes=[("a", point) for point in points[:-2]])


def gc(_):
    return Plan("gc", ["gc", "--json"])


def protect(bench):
    pair = bench.world.pairs()[0]
    return Plan("protect", ["protect", f"{pair[0]}@{pair[1]}"],
                holds=lambda world: pair in world.program.protected)


def verify(_):
    return Plan("verify", ["verify", "--workers=1", "--json"])


def list_points(_):
    return Plan("list", ["list", "--json"])


def diff(_):
    return Plan("diff", ["diff", "a@-1", "a@latest", "--json"])


# A scenario is run when the program has the command that its plan names first.
SCENARIOS = {
    "snapshot": snapshot, "first": first, "frozen": frozen, "restore": restore, "device": device,
    "delete": delete, "prune": prune, "protect": protect, "gc": gc, "verify": verify,
    "list": list_points, "diff": diff,
}

# These leave nothing, and change nothing.
ONLY_READ = ("restore", "verify", "list", "diff")
# What these say is compared with what they say undisturbed.
TELL = ("verify", "list", "diff")


class Bench:
    """A repository that is brought back to the same state before each fault."""

    def __init__(self, rig, path, generator):
        self.rig, self.random = rig, generator
        copied = rig.path("strobe")
        shutil.copy2(path, copied)
        self.repository = os.path.join(rig.host, "repository")
        self.template = os.path.join(rig.host, "template")
        self.program = Program(copied, self.repository)
        self.world = World(rig, self.program, generator, sizes=(2, 3, 3))
        self.tracer = Tracer(rig, self.program, compile_library(rig, "wait"))
        self.mounts = []
        self.notes = collections.Counter()
        self.ends = collections.Counter()
        self.add_file_systems()
        self.target = rig.attach(self.sparse("target.raw", 3))
        self.make_template()

    def sparse(self, name, mebibytes):
        path = self.rig.path(name)
        self.rig.sparse(path, mebibytes << 20)
        return path

    def add_file_systems(self):
        """Two disks with an ext4 each: what a freeze writes to them is their kernel's affair."""
        for number, mebibytes in enumerate((8, 12)):
            path = self.rig.attach(self.sparse(f"f-{number}.raw", mebibytes))
            run(["mkfs.ext4", "-q", path])
            mount = self.rig.mount(path, f"mount-{number}", "", "ext4")
            with open(os.path.join(mount, "file"), "wb") as file:
                file.write(self.random.randbytes(300_000))
            self.mounts.append((f"f-{number}", path, mount))
        os.sync()

    def make_template(self):
        self.program.run("init", "--chunk-size=16KiB")
        world = self.world
        for name, count in (("a", 6), ("b", 3)):
            for _ in range(count):
                for source in world.collections[name]:
                    source.change(400_000)
                plan = Plan("snapshot", ["snapshot", name, "--json", *world.disk_words(name)],
                            takes=name)
                world.run_whole(plan)
        # The last one stands alone: its objects are garbage when it is deleted.
        world.run_whole(Plan("snapshot", ["snapshot", "b", "--full", "--json"], takes="b"))
        chosen = [*world.pairs()[1:3], world.pairs()[-1]]
        world.run_whole(Plan("delete", ["delete", *(f"{name}@{point}" for name, point in chosen)],
                             deletes=chosen))
        world.collections["new"] = [world.collections["b"][0]]
        world.book["new"], world.book["f"] = {}, {}
        words = [f"--disk={name}={path}" for name, path, _ in self.mounts]
        self.program.run("snapshot", "f", "--quiet", *words)
        self.learn(world)
        for source in world.collections["a"] + world.collections["b"]:
            source.change(400_000)
        run(["cp", "-a", "--reflink=always", self.repository, self.template])

    def learn(self, world):
        """Puts the frozen points that the book doesn't know into it, when their file systems are whole."""
        for point in self.program.points().get("f", []):
            if point in world.book["f"]:
                continue
            self.program.run("restore", f"f@{point}", "--to", world.restored, "--overwrite", "--quiet")
            paths = {name: os.path.join(world.restored, f"{name}.raw") for name, _, _ in self.mounts}
            shown = json.loads(self.program.run("show", f"f@{point}", "--json").stdout)
            if shown["consistency"] == "FileSystemConsistent":
                for path in paths.values():
                    check(self.rig, "ext4", [path])
            else:
                self.ends[f"{shown['consistency']}: {shown['consistencyReasons']}"[:200]] += 1
            world.book["f"][point] = {name: digest(path) for name, path in paths.items()}

    def reset(self):
        shutil.rmtree(self.repository)
        run(["cp", "-a", "--reflink=always", self.template, self.repository])
        shutil.rmtree(self.world.restored, ignore_errors=True)

    # What has to hold.

    def judge(self, make, fault, result):
        plan, world = make(self), self.world.on(self.program)
        self.said = f"{fault}: {result.errors.strip()[-220:]}"
        self.expect_end(fault, result)
        self.expect_nothing_frozen(result)
        status = result.status
        if status == 3:
            # Done, but weaker: a point that isn't consistent, points that had to be left.
            status = 1 if plan.deletes else 0
        self.settle(world, plan, None if status < 0 else status, result.output)
        if status == 0 and hasattr(plan, "target") and digest(self.target) != plan.target:
            raise Failure("the device was restored to something else")
        self.expect_whole_files(world, plan, result)
        if status == 0 and plan.words[0] in TELL and self.told(result.output) != self.reference:
            raise Failure(f"told something else than it does undisturbed: {result.output[:600]}")
        # The next command works; what was to be deleted may be gone already.
        if not plan.deletes or all(pair in world.pairs() for pair in plan.deletes):
            words = [*plan.words, "--resume"] if plan.reads and self.random.random() < 0.5 else plan.words
            again = self.program.run(*words, check=False)
            if again.returncode != 0:
                raise Failure(f"the next command: status {again.returncode}: {again.stderr[-300:]}")
            self.settle(world, plan, 0, again.stdout)
            if plan.reads:
                self.expect_whole_files(world, plan)
        world.check_some(1)
        if plan.words[0] in ONLY_READ:
            # What a killed `verify` was writing down is gc's to clear up.
            if status < 0:
                world.run_whole(collect_all(world))
            return self.expect_no_leftovers()
        world.run_whole(snapshot(self))
        self.program.run("verify")
        world.run_whole(collect_all(world))
        expect_nothing_useless(self.repository)
        self.expect_no_leftovers()

    @staticmethod
    def told(output):
        """What a command's document says, but for how long it took."""
        found = json.loads(output)
        found.pop("seconds", None)
        return found

    def expect_no_leftovers(self):
        left = leftovers(self.repository)
        if left:
            raise Failure(f"left behind after the next commands: {left[:5]}")

    def settle(self, world, plan, status, output):
        if plan.takes == "f":
            self.settle_frozen(world, status)
            return
        new = world.settle(plan, status, output)
        if new:
            world.check_point(new)
            if status:
                self.ends["failed, and its point is there"] += 1
                self.notes[f"said that it failed, and the point is there: {self.said}"] += 1

    def settle_frozen(self, world, status):
        known = len(world.book["f"])
        self.learn(world)
        world.settle(Plan("list", []), None)
        if status == 0 and len(world.book["f"]) != known + 1:
            raise Failure("snapshot said that it was done, and there is no point")

    def expect_end(self, fault, result):
        """A status that a program chose, and a message."""
        if result.status < 0:
            if fault.code == KILL and result.status == -9:
                self.ends["killed"] += 1
                return
            if fault.call in OF_MEMORY:
                self.ends["ended for want of memory"] += 1
                return
            raise Failure(f"ended by signal {-result.status}: {result.errors[-500:]}")
        if result.status not in (0, 1, 3):
            raise Failure(f"status {result.status}: {result.errors[-300:]}")
        self.ends[f"status {result.status}"] += 1
        if result.status != 1:
            return
        said = result.errors.strip()
        if not said:
            raise Failure("status 1 and not a word")
        if fault.text not in said or ("/" not in said and "standard output" not in said):
            self.notes[f"says neither reason nor object: {fault.call} {fault.code}: {said[:220]}"] += 1

    def expect_nothing_frozen(self, result):
        end = time.monotonic() + 15
        while self.guardians():
            if time.monotonic() > end:
                raise Failure("a guardian lives on")
            time.sleep(0.01)
        left = os.listdir(RECORDS) if os.path.isdir(RECORDS) else []
        stuck = [mount for _, _, mount in self.mounts if freeze_ioctl(mount, FITHAW) == 0]
        if stuck:
            raise Failure(f"left frozen: {stuck}; status {result.status}: {result.errors[-300:]}")
        if left:
            self.program.run("thaw")
            self.ends["records left for `strobe thaw`"] += 1
            if os.listdir(RECORDS):
                raise Failure(f"strobe thaw leaves records: {os.listdir(RECORDS)}")

    def guardians(self):
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                if b"guardian-process" in words and (
                        os.readlink(f"/proc/{name}/exe") == self.program.path):
                    found.append(int(name))
            except OSError:
                continue
        return found

    def expect_whole_files(self, world, plan, result=None):
        """A file that has its name is complete; one that has not is there to be gone on with, and was told of.

        Args:
            result: of a restore that may have been interrupted; None: of one that said that it was done.
        """
        if not plan.reads or not os.path.isdir(world.restored):
            return
        wanted = world.book[plan.reads[0]][plan.reads[1]]
        for name in os.listdir(world.restored):
            path = os.path.join(world.restored, name)
            if name.endswith(PARTIAL) and name[1:].removesuffix(f".raw{PARTIAL}") in wanted:
                self.expect_told(path, result)
                continue
            disk = name.removesuffix(".raw")
            if disk not in wanted:
                raise Failure(f"a restore left {name}")
            if digest(path) != wanted[disk]:
                raise Failure(f"a restore left {name}, which isn't what it is to be")
        if (result is None or result.status == 0) and len(os.listdir(world.restored)) != len(wanted):
            raise Failure(f"a restore that was done made {os.listdir(world.restored)}")

    @staticmethod
    def expect_told(partial, result):
        """Of what an interrupted restore keeps: only a killed one does so without a word."""
        if result is None or result.status not in (1, -9) or (
                result.status == 1 and partial not in result.errors):
            raise Failure(f"a restore left {os.path.basename(partial)}")
