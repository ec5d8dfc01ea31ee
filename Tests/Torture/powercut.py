#!/usr/bin/env python3
"""Cuts the power of the disk below the repository, at random moments, and checks what came through.

The repository is on a file system on a loop device with direct I/O. The file behind the device is cloned (FICLONE, on an XFS
or a Btrfs) while strobe runs, or in the moment when it has just said that it is done: the clone is exactly
what the disk held then, and nothing of what was still in memory. It is attached and mounted (journal
replay), and there:

  every point whose snapshot had succeeded before the cut is there and restores byte for byte
  no point whose deletion had succeeded is back
  the one in flight is absent or whole
  nothing is damaged; the next snapshot, deletion, prune and garbage collection work and leave nothing useless
  the file system's own checker finds nothing

With --sabotage strobe runs with nosync.c, in which fsync does nothing: then points have to be lost, or this rig tests nothing.

Exit status: 0 everything held (with --sabotage: it was found), 1 something didn't, 2 wrong usage."""

import argparse
import fcntl
import os
import random
import shutil
import sys
import time

from objects import expect_nothing_useless
from rig import Failure, Rig, enter_namespace, run
from upkeep import Program, World, collect_all, compile_library, delete, prune, snapshot

FICLONE = 0x40049409
# What the repository's file system is: kind, options of mkfs, options of mount, the file system below.
VARIANTS = {
    "ext4": ("ext4", [], "", "xfs"),
    "xfs": ("xfs", [], "", "btrfs"),
    "btrfs": ("btrfs", [], "", "xfs"),
    "ext4-writeback": ("ext4", [], "data=writeback", "btrfs"),
    "xfs-small-log": ("xfs", ["--unsupported", "-l", "size=8m"], "", "xfs"),
}


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--cuts", type=int, default=200, metavar="N", help="of all variants together")
    parser.add_argument("--on", default=",".join(VARIANTS), metavar="V,V",
                        help=f"of {','.join(VARIANTS)} (default: all)")
    parser.add_argument("--folder", default="/tmp", metavar="DIR",
                        help="where the disk's bytes lie in the end (default: /tmp)")
    parser.add_argument("--sabotage", choices=("all", "files", "directories"),
                        help="without fsync of these: has to find losses")
    parser.add_argument("--seed", type=int, metavar="N", help="default: random")
    parser.add_argument("--failures", type=int, default=3, metavar="N",
                        help="give up a variant after so many (default: 3)")
    values = parser.parse_args()
    values.on = values.on.split(",")
    for name in values.on:
        if name not in VARIANTS:
            parser.error(f"there is no variant {name}")
    return values


class Bench:
    """A repository on a disk whose power can be cut."""

    def __init__(self, rig, variant, values, generator):
        self.rig, self.random = rig, generator
        self.kind, options, self.mount_options, _ = VARIANTS[variant]
        self.image = os.path.join(rig.host, "disk.img")
        self.cut_image = os.path.join(rig.host, "cut.img")
        rig.sparse(self.image, 768 << 20)
        run([f"mkfs.{self.kind}", "-q", *options, self.image])
        device = rig.attach(self.image, "--direct-io=on")
        with open(f"/sys/block/{os.path.basename(device)}/loop/dio", encoding="ascii") as file:
            if file.read().strip() != "1":
                raise Failure(f"{device} has no direct I/O: its page cache would hide what was not flushed")
        mount = rig.mount(device, "disk", self.mount_options, self.kind)
        path = rig.path("strobe")
        shutil.copy2(os.path.abspath(values.strobe), path)
        program = Program(path, os.path.join(mount, "repository"))
        program.run("init")
        if values.sabotage:
            program.preload = compile_library(rig, "nosync")
            program.more["STROBE_TORTURE_NOSYNC"] = values.sabotage
        self.world = World(rig, program, generator)
        self.times = {}
        self.world.run_whole(snapshot(self.world))

    def cut(self):
        """Keeps what the disk holds now."""
        if os.path.exists(self.cut_image):
            os.unlink(self.cut_image)
        source = os.open(self.image, os.O_RDONLY)
        target = os.open(self.cut_image, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.ioctl(target, FICLONE, source)
        finally:
            os.close(source)
            os.close(target)

    def command(self, moment):
        """Runs a command and cuts the power in the middle of it (`during`), when it is done (`after`), or not.

        Returns:
            its plan, the moment of the cut, and the book that the cut has to fulfil.
        """
        plan = self.world.choose()
        if moment == "after" and self.random.random() < 0.7:
            # The last thing that is made durable tells most: the directory that a name vanished from.
            plan = self.random.choice((snapshot, delete))(self.world)
        output = self.rig.path("output")
        process = self.world.program.start(plan.words, output)
        begin = time.monotonic()
        before = self.world.on(self.world.program)
        if moment == "during":
            times = sorted(self.times.get(plan.name, [0.1])[-15:])
            time.sleep(self.random.uniform(0, 1.05) * times[len(times) // 2])
            if process.poll() is not None:
                moment = "after"
            else:
                self.cut()
        status = process.wait(180)
        if moment == "after":
            self.cut()
        else:
            self.times.setdefault(plan.name, []).append(time.monotonic() - begin)
        with open(output, encoding="utf-8", errors="replace") as file:
            text = file.read()
        if status != 0:
            with open(output + ".errors", encoding="utf-8", errors="replace") as file:
                raise Failure(f"{' '.join(plan.words)}: status {status}: {file.read()[-500:]}")
        self.world.settle(plan, 0, text)
        return plan, moment, before if moment == "during" else self.world

    def judge(self, plan, moment, book):
        """Attaches what the cut left, and checks all of it. Returns what is worth telling."""
        device = self.rig.attach(self.cut_image)
        place = None
        try:
            self.forget(device)
            options = ",".join(filter(None, [
                self.mount_options, "nouuid" if self.kind == "xfs" else ""]))
            place = self.rig.mount(device, "cut", options, self.kind)
            program = Program(self.world.program.path, os.path.join(place, "repository"))
            told = self.judge_repository(book.on(program), plan, moment)
            self.rig.unmount(place)
            place = None
            self.check_file_system(device)
        finally:
            if place:
                self.rig.unmount(place)
            self.forget(device)
            self.rig.detach(device)
        return told

    def forget(self, device):
        """Btrfs gives a file system whose identity is mounted already another one for the time, but not
        where it remembers the device as one of that."""
        if self.kind == "btrfs":
            run(["btrfs", "device", "scan", "--forget", device], check=False)

    def judge_repository(self, world, plan, moment):
        new = world.settle(plan, None)
        if new and moment != "during":
            raise Failure(f"{new} came after its command")
        program = world.program
        count = world.check_some(4, new)
        newest = [(name, list(points)[-1]) for name, points in world.book.items() if points]
        for pair in newest:
            world.check_point(pair)
        program.run("verify")
        # The sources are as they were at the cut, and at rest.
        fresh = world.run_whole(snapshot(world))
        world.check_point(fresh)
        world.run_whole(delete(world))
        if "prune" in program.commands:
            world.run_whole(prune(world))
        world.run_whole(collect_all(world))
        program.run("verify")
        world.check_some(2)
        expect_nothing_useless(program.repository)
        return f"{len(world.pairs())} points, {count} compared{', the new one is there' if new else ''}"

    def check_file_system(self, device):
        words = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"],
                 "btrfs": ["btrfs", "check", "--readonly", "--force"]}[self.kind]
        result = run([*words, device], check=False)
        if result.returncode != 0:
            raise Failure(f"{' '.join(words)}: {(result.stdout + result.stderr)[-600:]}")


def one_cut(bench):
    """Returns a line about it."""
    for _ in range(bench.random.randrange(3)):
        bench.command("never")
    plan, moment, book = bench.command(bench.random.choice(("during", "after")))
    begin = time.monotonic()
    try:
        told = bench.judge(plan, moment, book)
    except Failure as failure:
        raise Failure(f"cut {moment} {plan.name}: {failure}") from None
    return f"{moment:6} {plan.name:8}: {told}, {time.monotonic() - begin:.1f} s: OK"


def torture(variant, count, values, seed):
    """Returns how many cuts were made and how many failed."""
    rig = Rig("test-torture-cut", host_size=4 << 30, host_kind=VARIANTS[variant][3],
              host_folder=values.folder)
    made = failures = 0
    try:
        bench = Bench(rig, variant, values, random.Random(f"{seed} {variant}"))
        while made < count:
            try:
                made += 1
                print(f"{variant:16} {made:3} {one_cut(bench)}", flush=True)
            except Failure as failure:
                failures += 1
                print(f"{variant:16} {made:3} FAILED: {failure}", flush=True)
                if failures >= values.failures:
                    break
        if not values.sabotage:
            bench.world.check_at_rest()
    except Failure as failure:
        failures += 1
        print(f"{variant:16} FAILED: {failure}", flush=True)
    finally:
        rig.clean()
    return made, failures


def main():
    values = arguments()
    enter_namespace()
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    begin = time.monotonic()
    cuts = failures = 0
    for index, variant in enumerate(values.on):
        share = (values.cuts + index) // len(values.on)
        made, failed = torture(variant, max(share, 1), values, seed)
        cuts, failures = cuts + made, failures + failed
    took = f"{cuts} cuts in {time.monotonic() - begin:.0f} s"
    if values.sabotage:
        verdict = f"{took}: {failures} losses without fsync ({values.sabotage}) were found"
        print(f"# seed {seed}: {verdict}{'' if failures else ': this rig tests nothing'}", flush=True)
        return 0 if failures else 1
    verdict = "everything held" if failures == 0 else f"{failures} FAILED"
    print(f"# seed {seed}: {took}: {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
