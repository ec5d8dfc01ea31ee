"""A repository under upkeep: two collections, their disks, and the book of what it has to hold.

A new command of strobe is added to COMMANDS, with a function that makes its plan: the words, and what it is asked to
take or to delete. All rigs that use the table (upkeep_kill.py, powercut.py) run it from then on, as soon as
the program knows it."""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess

from objects import expect_nothing_useless
from rig import Failure, die_with_parent, run
from window import COMPILERS

PATIENCE = 180
HERE = os.path.dirname(os.path.abspath(__file__))


def compile_library(rig, name):
    """Compiles a library for LD_PRELOAD from NAME.c; returns its path."""
    library = rig.path(f"{name}.so")
    for compiler in COMPILERS:
        if shutil.which(compiler):
            result = run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library,
                          os.path.join(HERE, f"{name}.c"), "-ldl"], check=False)
            if result.returncode == 0:
                return library
            raise Failure(f"{compiler} can't compile {name}.c: {result.stderr[-400:]}")
    raise Failure(f"neither clang nor gcc is there to compile {name}.c")


class Source:
    """A disk that is written to between the commands, and is at rest while one runs."""

    def __init__(self, rig, name, mebibytes, is_device, generator):
        self.name, self.size, self.random = name, mebibytes << 20, generator
        self.file = os.path.join(rig.folder if is_device else rig.host, f"{name}.raw")
        rig.sparse(self.file, self.size)
        self.path = rig.attach(self.file) if is_device else self.file
        self.digest = None
        # Not much: the layers that follow soon outgrow the first, and keyframes are written.
        self.change(self.size // 10)

    def change(self, amount=None):
        """Writes here and there, `amount` bytes or so; content that can and can't be compressed, and zeros."""
        if amount is None:
            amount = self.random.choice((4096, 100_000, 500_000, 2_000_000))
        with open(self.path, "r+b", buffering=0) as file:
            while amount > 0:
                length = min(self.random.choice((512, 4096, 65536, 300_000, 1 << 20)), amount + 511)
                offset = self.random.randrange((self.size - length) // 512 + 1) * 512
                kind = self.random.random()
                if kind < 0.2:
                    content = bytes(length)
                elif kind < 0.4:
                    content = (b"%d strobe " % offset * (length // 8 + 1))[:length]
                else:
                    content = self.random.randbytes(length)
                os.pwrite(file.fileno(), content, offset)
                amount -= length
            os.fsync(file.fileno())
        self.digest = digest(self.path)


def digest(path):
    """Of everything in a file or device."""
    summer = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            summer.update(piece)
    return summer.hexdigest()


class Program:
    """strobe with a repository.

    Attributes:
        preload: a library for LD_PRELOAD, or None.
        commands: those that its help names.
        protected: the (collection, point) pairs that were when the points were last listed.
    """

    def __init__(self, path, repository, preload=None, more=()):
        self.path, self.repository, self.preload = path, repository, preload
        self.more = dict(more)
        text = run([path, "--help"]).stdout
        self.commands = {line.split()[0] for line in text.splitlines()
                         if line.startswith("  ") and line[2:3].isalpha() and line.split()}
        self.protected = set()

    def has_option(self, command, option):
        return option in run([self.path, command, "--help"]).stdout

    def environment(self):
        found = {**os.environ, "STROBE_REPOSITORY": self.repository, **self.more}
        return {**found, "LD_PRELOAD": self.preload} if self.preload else found

    def run(self, *words, check=True):
        return run([self.path, *words], check=check, timeout=PATIENCE, env=self.environment())

    def start(self, words, output):
        """Starts a command with a process group of its own."""
        with open(output, "wb") as file, open(output + ".errors", "wb") as errors:
            return subprocess.Popen(
                [self.path, *words], stdin=subprocess.DEVNULL, stdout=file, stderr=errors,
                env=self.environment(), start_new_session=True, preexec_fn=die_with_parent)

    def points(self):
        """The identities of the points of all collections, in a dictionary."""
        found = json.loads(self.run("list", "--json").stdout)
        for collection in found["collections"]:
            if collection["unreadable"]:
                raise Failure(f"points that can't be read: {collection['unreadable']}")
        self.protected = {(collection["name"], point["id"]) for collection in found["collections"]
                          for point in collection["points"] if point.get("protected")}
        return {collection["name"]: [point["id"] for point in collection["points"]]
                for collection in found["collections"]}


def kill_group(process):
    """SIGKILL for a command and all that it started in its group; returns whether it was alive."""
    is_alive = process.poll() is None
    if is_alive:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return is_alive


class Plan:
    """A command that is to be run.

    Attributes:
        takes: the collection that gets a point, or None.
        deletes: (collection, point) pairs that it is asked to delete.
        reads: the pair that it restores, or None.
        holds: what is true when it is done, a function of the world, or None.
    """

    def __init__(self, name, words, takes=None, deletes=(), reads=None, holds=None):
        self.name, self.words, self.takes = name, words, takes
        self.deletes, self.reads, self.holds = set(deletes), reads, holds


# ---------------------------------------------------------------- the commands

def snapshot(world, *more, of=None):
    name = of or world.random.choice(list(world.collections))
    for source in world.collections[name]:
        if world.random.random() < 0.8:
            source.change()
    words = ["snapshot", name, "--json", "--quiet", *more]
    return Plan("snapshot", words + world.disk_words(name), takes=name)


def snapshot_full(world):
    """A new chain, as if the old one were damaged."""
    return snapshot(world, "--full")


def delete(world):
    pairs = [pair for pair in world.pairs() if pair not in world.program.protected]
    if len(pairs) < 3:
        return snapshot(world)
    chosen = world.random.sample(pairs, world.random.choice((1, 1, 2, 3)))
    return Plan("delete", ["delete", *(f"{name}@{point}" for name, point in chosen)],
                deletes=chosen)


def prune(world):
    name = world.random.choice(list(world.collections))
    if not world.book[name]:
        return snapshot(world, of=name)
    words = ["prune", name, f"--keep-last={world.random.randrange(2, 8)}", "--json"]
    # The newest that was verified stays as well: a dry run knows.
    dry = json.loads(world.program.run(*words, "--dry-run").stdout)
    return Plan("prune", words, deletes=[(name, point["id"]) for point in dry["points"]
                                         if point["action"] == "remove"])


def protect(world):
    if not world.pairs() or len(world.program.protected) > 3:
        return unprotect(world)
    pair = world.random.choice(world.pairs())
    return Plan("protect", ["protect", f"{pair[0]}@{pair[1]}"],
                holds=lambda world: pair in world.program.protected)


def unprotect(world):
    if not world.program.protected:
        return snapshot(world)
    pair = world.random.choice(sorted(world.program.protected))
    return Plan("unprotect", ["unprotect", f"{pair[0]}@{pair[1]}"],
                holds=lambda world: pair not in world.program.protected)


def collect(world):
    more = []
    if world.random.random() < 0.5 and world.program.has_option("gc", "--max-unused"):
        more = ["--max-unused=0"]
    return Plan("gc", ["gc", "--json", *more])


def collect_all(world):
    """What interrupted snapshots stored, too, where the next one would go on with it."""
    more = ["--drop-unfinished"] if world.program.has_option("gc", "--drop-unfinished") else []
    return Plan("gc", ["gc", "--json", *more])


def verify(world):
    what = world.random.choice([[], ["--workers=1"], [world.random.choice(list(world.collections))]])
    return Plan("verify", ["verify", "--json", *[word for word in what
                if word.startswith("-") or world.book[word]]])


def restore(world):
    pairs = world.pairs()
    if not pairs:
        return snapshot(world)
    name, point = world.random.choice(pairs)
    return Plan("restore", ["restore", f"{name}@{point}", "--to", world.restored, "--overwrite",
                            "--quiet"], reads=(name, point))


# The command as the program's help names it, how often it is run, its plan.
COMMANDS = [
    ("snapshot", 10, snapshot),
    ("snapshot", 1, snapshot_full),
    ("delete", 4, delete),
    ("prune", 2, prune),
    ("protect", 1, protect),
    ("unprotect", 1, unprotect),
    ("gc", 4, collect),
    ("verify", 2, verify),
    ("restore", 3, restore),
]


class World:
    """Collections and what the repository has to hold of them.

    Attributes:
        book: by collection, by point (oldest first), by disk: the digest of what it must restore to.
        deleted: points whose deletion was acknowledged.
        reported: passes that said that they failed and whose point is there all the same.
    """

    def __init__(self, rig, program, generator, sizes=(16, 24, 32)):
        """Makes the disks, of so many MiB."""
        self.rig, self.program, self.random = rig, program, generator
        self.restored = rig.path("restored")
        self.collections = {
            "a": [Source(rig, "a-file", sizes[0], False, generator),
                  Source(rig, "a-device", sizes[1], True, generator)],
            "b": [Source(rig, "b-device", sizes[2], True, generator)],
        }
        self.book = {name: {} for name in self.collections}
        self.deleted = set()
        self.reported = 0

    def on(self, program):
        """The same world as another repository has to show it: a copy taken at this moment."""
        other = copy.copy(self)
        other.program = program
        other.book = {name: dict(points) for name, points in self.book.items()}
        other.deleted = set(self.deleted)
        return other

    def disk_words(self, name):
        if self.book[name]:
            return []
        return [f"--disk={source.name}={source.path}" for source in self.collections[name]]

    def pairs(self):
        return [(name, point) for name, points in self.book.items() for point in points]

    def choose(self):
        """The next command's plan; when there are many points, more of them are deleted."""
        if len(self.pairs()) > 24:
            return delete(self)
        known = [entry for entry in COMMANDS if entry[0] in self.program.commands]
        return self.random.choices([entry[2] for entry in known],
                                   [entry[1] for entry in known])[0](self)

    def now(self, name):
        return {source.name: source.digest for source in self.collections[name]}

    def settle(self, plan, status, output=""):
        """Compares the repository's points with the book after a command, and brings the book up to date.

        Args:
            status: the command's exit status, or None when it was interrupted.
            output: what it said, where that matters: `snapshot --json`.

        Returns:
            the point that appeared, as a pair, or None.
        """
        there = self.program.points()
        new = None
        for name, points in self.book.items():
            found = there.get(name, [])
            for point in [point for point in points if point not in found]:
                if (name, point) not in plan.deletes:
                    raise Failure(f"{name}@{point} is gone ({plan.name}, status {status})")
                del points[point]
                self.deleted.add((name, point))
            for point in [point for point in found if point not in points]:
                if (name, point) in self.deleted:
                    raise Failure(f"{name}@{point} was deleted and is back ({plan.name})")
                if plan.takes != name or new:
                    raise Failure(f"{name}@{point} appeared from nowhere ({plan.name})")
                new = (name, point)
                points[point] = self.now(name)
        if status == 0:
            self.expect_done(plan, new, output)
        elif status is not None and new:
            self.reported += 1
        return new

    def expect_done(self, plan, new, output):
        kept = [pair for pair in plan.deletes if pair[1] in self.book[pair[0]]]
        if kept:
            raise Failure(f"{plan.name} said that it was done, and {kept} are still there")
        if plan.takes and not new:
            raise Failure(f"snapshot said that it was done, and there is no point: {output[-300:]}")
        if plan.takes and json.loads(output)["id"] != new[1]:
            raise Failure(f"snapshot told another point than {new}: {output[-300:]}")
        if plan.reads:
            self.expect_content(plan.reads)
        if plan.holds and not plan.holds(self):
            raise Failure(f"{' '.join(plan.words)} said that it was done, and it isn't")

    def check_point(self, pair):
        """Restores a point and compares every disk with what it was."""
        self.program.run("restore", f"{pair[0]}@{pair[1]}", "--to", self.restored, "--overwrite",
                         "--quiet")
        self.expect_content(pair)

    def expect_content(self, pair):
        for disk, wanted in self.book[pair[0]][pair[1]].items():
            found = digest(os.path.join(self.restored, f"{disk}.raw"))
            if found != wanted:
                raise Failure(f"{pair[0]}@{pair[1]}, disk {disk}: restored to something else")

    def check_some(self, count, first=None):
        """Checks points chosen at random, and `first` in any case; all when `count` is None."""
        pairs = [pair for pair in self.pairs() if pair != first]
        if count is not None:
            pairs = self.random.sample(pairs, min(count, len(pairs)))
        for pair in ([first] if first else []) + pairs:
            self.check_point(pair)
        return len(pairs) + (1 if first else 0)

    def run_whole(self, plan):
        """Runs a command that has to succeed."""
        output = self.program.run(*plan.words).stdout
        return self.settle(plan, 0, output)

    def check_at_rest(self):
        """Everything restores, nothing is damaged, and nothing useless stays after a collection."""
        self.check_some(None)
        self.program.run("verify")
        self.run_whole(collect_all(self))
        return expect_nothing_useless(self.program.repository)
