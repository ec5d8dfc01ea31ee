"""Disks below that can't be read or written to: strobe has to say so, commit nothing wrong, and give
everything else back.

A loop device reports EIO where its file was cut off, ENOSPC where the file system of its file is full; Btrfs
reports EIO where a block of a file isn't what was written, and here it isn't."""

import os
import time

from rig import Failure, run
from upkeep import Program, digest

MIB = 1 << 20
BLOCK = 4096


class Below:
    def __init__(self, rig, path, generator):
        self.rig, self.random = rig, generator
        self.image = os.path.join(rig.host, "below.img")
        rig.sparse(self.image, 256 * MIB)
        run(["mkfs.btrfs", "-q", self.image])
        self.device = rig.attach(self.image)
        self.place = rig.mount(self.device, "below", "", "btrfs")
        self.program = Program(path, os.path.join(self.place, "repository"))
        self.program.run("init")
        self.restored = rig.path("restored-below")

    # Means.

    def file(self, name, mebibytes):
        path = os.path.join(self.place, name)
        with open(path, "wb") as file:
            file.write(self.random.randbytes(mebibytes * MIB))
        return path

    def damage(self, path, offset):
        """Changes a block of a file below its file system, which finds that out by its own checksum."""
        with open(path, "rb") as file:
            file.seek(offset)
            wanted = file.read(BLOCK)
        self.rig.unmount(self.place)
        with open(self.image, "r+b") as image:
            where = self.find(image, wanted)
            image.seek(where + 100)
            image.write(bytes(byte ^ 0xFF for byte in wanted[100:104]))
        self.rig.mount(self.device, "below", "", "btrfs")
        with open(path, "rb") as file:
            file.seek(offset)
            try:
                file.read(BLOCK)
            except OSError:
                return
        raise Failure(f"{path} can still be read at {offset}: this tests nothing")

    @staticmethod
    def find(image, wanted):
        position = 0
        image.seek(0)
        while piece := image.read(16 * MIB):
            at = piece.find(wanted)
            # What is stored of it in a segment lies behind a header.
            while at >= 0 and at % BLOCK != 0:
                at = piece.find(wanted, at + 1)
            if at >= 0:
                return position + at
            position += len(piece)
        raise Failure("the block isn't in the image")

    def object(self, room, point):
        """The path of the only object of a pass in a room."""
        folder = os.path.join(self.program.repository, room, point[:2])
        names = [name for name in os.listdir(folder) if name.startswith(point)]
        return os.path.join(folder, sorted(names)[-1])

    def fails(self, words, *mentioned):
        """The command fails, and says all of `mentioned`."""
        result = self.program.run(*words, check=False)
        said = result.stderr + result.stdout
        if result.returncode != 1:
            raise Failure(f"{' '.join(words)}: status {result.returncode} instead of 1: {said[-400:]}")
        for word in mentioned:
            if word not in said:
                raise Failure(f"{' '.join(words)} says nothing of {word}: {said[-500:]}")
        return said

    def take(self, *words):
        self.program.run("snapshot", "d", "--quiet", *words)
        return self.program.points()["d"][-1]

    def expect(self, point, disk, wanted):
        self.program.run("restore", f"d@{point}", "--to", self.restored, "--overwrite", "--quiet")
        if digest(os.path.join(self.restored, f"{disk}.raw")) != wanted:
            raise Failure(f"{point}, disk {disk}: restored to something else")

    def expect_points(self, wanted):
        found = self.program.points().get("d", [])
        if found != wanted:
            raise Failure(f"points {found} instead of {wanted}")

    # What is tried.

    def source_cut_off(self):
        """A device that can't be read beyond a point, then can."""
        path = self.file("cut.raw", 4)
        device = self.rig.attach(path, "--direct-io=on")
        point = self.take(f"--disk=s={device}")
        whole = digest(device)
        os.truncate(path, 2 * MIB)
        self.fails(["snapshot", "d", "--full", "--quiet"], device, "byte", "Input/output error")
        self.expect_points([point])
        os.truncate(path, 4 * MIB)
        after = self.take()
        self.expect(after, "s", digest(device))
        self.expect(point, "s", whole)
        self.program.run("delete", f"d@{point}", f"d@{after}")
        self.program.run("gc")
        self.rig.detach(device)
        self.source = self.file("source.raw", 6)

    def source_damaged(self):
        """An image file with a block that can't be read."""
        offset = self.random.randrange(6 * MIB // BLOCK) * BLOCK
        point = self.take("--forget-disk=s", f"--disk=f={self.source}")
        whole = digest(self.source)
        self.damage(self.source, offset)
        said = self.fails(["snapshot", "d", "--quiet"], self.source, "byte")
        if f"byte {offset}" not in said:
            raise Failure(f"the byte is {offset}, and strobe says: {said}")
        self.expect_points([point])
        self.expect(point, "f", whole)
        with open(self.source, "r+b") as file:
            os.pwrite(file.fileno(), self.random.randbytes(BLOCK), offset)
        self.points = {point: whole, self.take(): digest(self.source)}
        for name, wanted in self.points.items():
            self.expect(name, "f", wanted)

    def target_full(self):
        """A device whose writes fail, because what is below it is full."""
        small = self.rig.path("small")
        os.makedirs(small)
        run(["mount", "-t", "tmpfs", "-o", "size=2m", "strobe-torture", small])
        self.rig.mounts.append(small)
        path = os.path.join(small, "target.raw")
        self.rig.sparse(path, 6 * MIB)
        device = self.rig.attach(path)
        point = next(iter(self.points))
        self.fails(["restore", f"d@{point}", f"--disk=f={device}", "--quiet"], device)
        self.expect(point, "f", self.points[point])
        self.rig.detach(device)
        self.rig.unmount(small)

    def segment_damaged(self):
        """A segment with a block that can't be read: what doesn't need it is given back."""
        first, second = self.points
        with open(self.source, "r+b") as file:
            os.pwrite(file.fileno(), self.random.randbytes(MIB), 2 * MIB)
            os.fsync(file.fileno())
        third = self.take()
        self.points[third] = digest(self.source)
        path = self.object("segments", third)
        # A block within the records, not the header.
        self.damage(path, self.random.randrange(2, os.path.getsize(path) // BLOCK - 1) * BLOCK)
        self.fails(["verify"], os.path.basename(path), third[:12])
        self.fails(["restore", f"d@{third}", f"--disk=f={self.rig.path('out.raw')}", "--quiet"],
                   os.path.basename(path))
        if os.path.exists(self.rig.path("out.raw")):
            raise Failure("a restore that failed left its file")
        for name in (first, second):
            self.expect(name, "f", self.points[name])
        # Stored again: --full is the way out.
        fourth = self.take("--full")
        self.points[fourth] = digest(self.source)
        self.expect(fourth, "f", self.points[fourth])
        self.program.run("delete", f"d@{third}")
        self.program.run("gc")
        self.program.run("verify")

    def layer_damaged(self):
        """A layer that can't be read: the next point doesn't build on it, and gc frees nothing."""
        newest = list(self.points)[-1]
        path = self.object("layers", newest)
        self.damage(path, 0)
        self.fails(["verify"], newest[:12])
        self.fails(["restore", f"d@{newest}", f"--disk=f={self.rig.path('out.raw')}", "--quiet"],
                   os.path.basename(path))
        self.fails(["gc"], "nothing was freed", os.path.basename(path))
        after = self.take()
        self.expect(after, "f", digest(self.source))
        first = next(iter(self.points))
        self.expect(first, "f", self.points[first])
        self.program.run("delete", f"d@{newest}")
        self.program.run("gc")
        self.program.run("verify")


def torture(rig, path, generator):
    """Returns how many of them failed."""
    begin = time.monotonic()
    below = Below(rig, path, generator)
    steps = ("source_cut_off", "source_damaged", "target_full", "segment_damaged", "layer_damaged")
    for step in steps:
        try:
            getattr(below, step)()
        except Failure as failure:
            print(f"below     {step}: FAILED: {failure}", flush=True)
            return 1
    print(f"below     {', '.join(steps)}: OK, {time.monotonic() - begin:.0f} s", flush=True)
    return 0
