#!/usr/bin/env python3
"""Takes restore points of two disks that qemu-storage-daemon serves, while a writer fills them through FUSE: each
number first into a block of the first disk, then into the same of the second. (Its one NBD server is Strobe's.)

At whatever instant a point is taken, the largest number of the first disk is that of the second, or one more;
and no number of a point may be missing. Every point is restored and looked at; at the end the writer stops, and
the last point has to equal the disks' files byte for byte.

Exit status: 0 everything held, 1 something didn't, 2 wrong usage."""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import sys
import time

from compare import differences, text
from rig import Failure, enter_namespace, run

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Guest"))
import leftovers  # noqa: E402
from place import Place  # noqa: E402
from qmp import Monitor  # noqa: E402

NAMES = ("first", "second")
BLOCK = 4096
# Blocks of a disk, and how far apart neighbours in time are: odd, so that all are met.
BLOCKS, STRIDE = 4096, 1571
COLLECTION = "daemon"


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--rounds", type=int, default=1000, metavar="N")
    parser.add_argument("--format", choices=("raw", "qcow2"), default="raw")
    parser.add_argument("--filter", action="store_true", help="a raw node that stays lies over each disk")
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="of each disk (default: 64)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the pauses between rounds (default: random)")
    return parser.parse_args()


def offset(number):
    return number * STRIDE % BLOCKS * BLOCK


class Daemon:
    """qemu-storage-daemon with two disks, which are exported as what a guest would see."""

    def __init__(self, place, kind, has_filter, mebibytes):
        self.place, self.kind, self.has_filter = place, kind, has_filter
        self.socket = place.path("qmp.sock")
        # What a guest would see.
        self.devices = [place.path(f"{name}.device") for name in NAMES]
        self.files = {name: place.path(f"{name}.{kind}") for name in NAMES}
        for path in self.files.values():
            run(["qemu-img", "create", "-q", "-f", kind, path, f"{mebibytes}M"])
        self.process = place.start(
            ["qemu-storage-daemon",
             *(word for name in ("qmp", "test") for word in (
                 "--chardev", f"socket,id={name},path={place.path(name)}.sock,server=on,wait=off",
                 "--monitor", f"chardev={name}"))], place.path("daemon.log"))
        self.monitor = Monitor(place.path("test.sock"))
        for name, device in zip(NAMES, self.devices):
            self.add(name, device)

    def add(self, name, device):
        node = {"driver": self.kind, "node-name": f"node-{name}",
                "file": {"driver": "file", "filename": self.files[name]}}
        top = f"top-{name}" if self.has_filter else f"node-{name}"
        if self.has_filter:
            node = {"driver": "raw", "node-name": top, "file": node}
        self.monitor.call("blockdev-add", **node)
        with open(device, "wb"):
            pass
        self.place.undo(lambda: run(["umount", "-l", device]))
        self.monitor.call("block-export-add", type="fuse", id=name, mountpoint=device, node_name=top,
                          writable=True)

    def truth(self, name):
        """What the disk holds, in a raw file."""
        path = self.place.path("truth.raw")
        run(["qemu-img", "convert", "-q", "-U", "-f", self.kind, "-O", "raw", self.files[name], path])
        return path


def write_forever(first, progress, devices):
    """The writer, a process of its own. Begins with the number `first`; notes the last in the file `progress`."""
    disks = [os.open(device, os.O_RDWR | os.O_SYNC) for device in devices]
    number = first
    with open(progress, "r+b", buffering=0) as file:
        while True:
            for disk in disks:
                os.pwrite(disk, struct.pack("<Q", number) * (BLOCK // 8), offset(number))
            os.pwrite(file.fileno(), struct.pack("<Q", number), 0)
            number += 1


def numbers(path):
    """The last number of a restored disk; fails when a block is torn or a number is missing."""
    with open(path, "rb") as file:
        content = file.read(BLOCKS * BLOCK)
    found = {}
    for position in range(0, len(content), BLOCK):
        number, = struct.unpack_from("<Q", content, position)
        if content[position:position + BLOCK] != content[position:position + 8] * (BLOCK // 8):
            raise Failure(f"{os.path.basename(path)}: the block at {position} is torn")
        if number and offset(number) != position:
            raise Failure(f"{os.path.basename(path)}: number {number} at {position}, not {offset(number)}")
        found[number] = position
    last = max(found)
    missing = [number for number in range(max(1, last - BLOCKS + 1), last + 1) if number not in found]
    if missing:
        raise Failure(f"{os.path.basename(path)}: of {last} numbers {len(missing)} are missing: {missing[:5]}")
    return last


class Rounds:
    """Points of the daemon's disks."""

    def __init__(self, place, daemon, program):
        self.place, self.daemon = place, daemon
        self.program = place.path("strobe")
        shutil.copy2(program, self.program)
        self.environment = {**os.environ, "STROBE_REPOSITORY": place.path("repository")}
        self.scratch = place.make("scratch")
        self.baseline = leftovers.Baseline(daemon.monitor)
        self.progress = place.path("progress")
        self.command("init")

    def command(self, *words):
        result = run([self.program, *words], check=False, env=self.environment)
        if result.returncode not in (0, 3):
            raise Failure(f"strobe {words[0]}: status {result.returncode}: {result.stderr.strip()[-600:]}")
        return result.stdout

    def start_writer(self, first=1):
        if first == 1:
            with open(self.progress, "wb") as file:
                file.write(bytes(8))
        words = [sys.executable, os.path.abspath(__file__), "write", str(first), self.progress,
                 *self.daemon.devices]
        self.writer = self.place.start(words, self.place.path("writer.log"))
        while self.written() < first:
            if self.writer.poll() is not None:
                raise Failure("the writer ended")
            time.sleep(0.002)

    def written(self):
        with open(self.progress, "rb") as file:
            return struct.unpack("<Q", file.read(8))[0]

    def snapshot(self):
        begin = time.monotonic()
        point = json.loads(self.command(
            "snapshot", COLLECTION, "--qmp", self.daemon.socket, "--scratch", self.scratch, "--freeze", "none",
            "--json", "--quiet"))
        return point, time.monotonic() - begin

    def restore(self):
        folder = self.place.path("restored")
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        self.command("restore", f"{COLLECTION}@latest", "--to", folder, "--quiet")
        images = sorted(os.listdir(folder))
        if len(images) != 2:
            raise Failure(f"restored {images}")
        # first, second: in the order of their names, whatever stands before them.
        return [os.path.join(folder, image) for image in images]

    def one(self):
        """A point, restored. Returns how far the first disk is ahead, the seconds, and the point."""
        before = self.written()
        point, seconds = self.snapshot()
        after = self.written()
        first, second = (numbers(image) for image in self.restore())
        if first - second not in (0, 1):
            raise Failure(f"the disks show different instants: {first} and {second}")
        if not before <= first <= after + 1:
            raise Failure(f"the point has number {first}, the writer went from {before} to {after}")
        self.baseline.expect(self.daemon.monitor)
        return first - second, seconds, point

    def last(self):
        """Nobody writes any more: the restored disks are the files."""
        self.writer.kill()
        self.writer.wait()
        self.snapshot()
        for name, image in zip(NAMES, self.restore()):
            found = differences(self.daemon.truth(name), image)
            if found:
                raise Failure(f"{name} differs from the disk: {text(found)}")


def torture(values, place, generator):
    daemon = Daemon(place, values.format, values.filter, values.size)
    rounds = Rounds(place, daemon, values.strobe)
    rounds.start_writer()
    ahead, times, ways, increments = {}, [], set(), 0
    for number in range(values.rounds):
        time.sleep(generator.random() * 0.02)
        try:
            difference, seconds, point = rounds.one()
        except Failure as failure:
            raise Failure(f"round {number}: {failure}") from None
        ahead[difference] = ahead.get(difference, 0) + 1
        times.append(seconds)
        ways.add(point["machine"]["way"])
        increments += all("scanReason" not in disk and disk["changeSource"] != "scan"
                          for disk in point["disks"])
    rounds.last()
    times.sort()
    print(f"{values.rounds} rounds, {ways}, {increments} increments: the first disk ahead by {ahead}; a snapshot "
          f"took {statistics.median(times) * 1000:.0f} ms (median), "
          f"{times[len(times) * 9 // 10] * 1000:.0f} ms (nine tenths), {times[-1] * 1000:.0f} ms (longest); {rounds.written()} numbers were written", flush=True)
    if increments < values.rounds - 1:
        raise Failure(f"only {increments} of {values.rounds} points were increments")


def main():
    if sys.argv[1:2] == ["write"]:
        write_forever(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    values = arguments()
    enter_namespace()
    values.strobe = os.path.abspath(values.strobe)
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    place = Place("daemon")
    failures = 0
    try:
        torture(values, place, random.Random(seed))
    except Failure as failure:
        failures = 1
        print(f"FAILED: {failure}", flush=True)
    finally:
        place.clean()
    print(f"# seed {seed}: {'everything held' if failures == 0 else 'FAILED'}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
