#!/usr/bin/env python3
"""Kills strobe with SIGKILL at random moments of all that a repository goes through: snapshots, deletions,
prunes, garbage collections, verifications, restores; on ext4, XFS and Btrfs.

After every kill all points that were committed and not asked to be deleted must be there; some, and from
time to time all, are restored and compared with what their disks held. The point in flight is absent, or
whole. The next command must work. In the end nothing may be damaged, and after `strobe gc` there may be no object that
nobody names.

Exit status: 0 everything held, 1 something didn't, 2 wrong usage."""

import argparse
import os
import random
import shutil
import sys
import time

from rig import Failure, Rig, enter_namespace, run
from objects import keyframes, leftovers
from upkeep import Program, World, kill_group, snapshot

FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
EVERYTHING_EACH = 25


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--kills", type=int, default=500, metavar="N", help="of all file systems together")
    parser.add_argument("--on", default=",".join(FILE_SYSTEMS), metavar="F,F",
                        help=f"of {','.join(FILE_SYSTEMS)} (default: all)")
    parser.add_argument("--seed", type=int, metavar="N", help="default: random")
    values = parser.parse_args()
    values.on = values.on.split(",")
    for kind in values.on:
        if kind not in FILE_SYSTEMS:
            parser.error(f"there is no file system {kind}")
    return values


class Killer:
    """One repository whose commands are killed."""

    def __init__(self, rig, kind, program, generator):
        self.rig, self.random = rig, generator
        image = os.path.join(rig.host, "repository.img")
        rig.sparse(image, 1 << 30)
        run([f"mkfs.{kind}", "-q", image])
        mount = rig.mount(rig.attach(image), "mount", "", kind)
        copied = rig.path("strobe")
        shutil.copy2(program, copied)
        self.program = Program(copied, os.path.join(mount, "repository"))
        self.program.run("init")
        self.world = World(rig, self.program, generator)
        # A chain that is long enough for keyframes.
        for name in ("a", "a", "b", "a", "a", "a", "a"):
            self.world.run_whole(snapshot(self.world, of=name))
        self.times = {}
        self.kills, self.whole = {}, {}
        self.points = self.in_flight = self.keyframes = 0

    def delay(self, name):
        """A moment of the command's expected run time, in seconds; None to let it through."""
        if self.random.random() < 0.15 or name not in self.times:
            return None
        times = sorted(self.times[name][-15:])
        return self.random.uniform(0, 1.05) * times[len(times) // 2]

    def step(self):
        """One command, killed or not; returns whether it was killed."""
        plan = self.world.choose()
        delay = self.delay(plan.name)
        output = self.rig.path("output")
        process = self.program.start(plan.words, output)
        begin = time.monotonic()
        is_killed = False
        if delay is not None:
            time.sleep(delay)
            is_killed = kill_group(process)
        status = process.wait(180)
        with open(output, encoding="utf-8", errors="replace") as file:
            text = file.read()
        if is_killed:
            self.kills[plan.name] = self.kills.get(plan.name, 0) + 1
            status = None
        else:
            self.times.setdefault(plan.name, []).append(time.monotonic() - begin)
            self.whole[plan.name] = self.whole.get(plan.name, 0) + 1
            if status != 0:
                with open(output + ".errors", encoding="utf-8", errors="replace") as file:
                    raise Failure(f"{' '.join(plan.words)}: status {status}: {file.read()[-500:]}")
        self.after(plan, status, text)
        return is_killed

    def after(self, plan, status, text):
        new = self.world.settle(plan, status, text)
        if status is None and new:
            self.in_flight += 1
        total = sum(self.kills.values())
        is_turn = status is None and total % EVERYTHING_EACH == 0
        self.keyframes = max(self.keyframes, keyframes(self.program.repository))
        self.points += self.world.check_some(None if is_turn else 2, new)
        if status is None and self.random.random() < 0.3:
            # The next command works, whatever it is.
            self.world.run_whole(self.world.choose())

    def finish(self):
        # The next snapshot of a collection clears up after those that were killed.
        for name in self.world.collections:
            self.world.run_whole(snapshot(self.world, of=name))
        found = self.world.check_at_rest()
        left = leftovers(self.program.repository)
        if left:
            raise Failure(f"left behind: {left[:6]}")
        return found

    def told(self, what):
        return ", ".join(f"{count} {name}" for name, count in sorted(what.items()))


def torture(kind, count, values, seed):
    """Returns how many rounds failed."""
    rig = Rig("test-torture-upkeep", host_size=3 << 30)
    failures = 0
    begin = time.monotonic()
    try:
        killer = Killer(rig, kind, os.path.abspath(values.strobe), random.Random(f"{seed} {kind}"))
        while sum(killer.kills.values()) < count:
            killer.step()
        objects, size = killer.finish()
        print(f"{kind:6} killed: {killer.told(killer.kills)}; through: {killer.told(killer.whole)}; "
              f"{killer.in_flight} killed snapshots were committed; {killer.points} points restored "
              f"and compared; {objects} objects, {size >> 10} KiB, all named, {killer.keyframes} keyframes "
              f"at most: OK, "
              f"{time.monotonic() - begin:.0f} s", flush=True)
    except Failure as failure:
        failures += 1
        done = sum(killer.kills.values()) if "killer" in locals() else 0
        print(f"{kind:6} after {done} kills: FAILED: {failure}", flush=True)
    finally:
        rig.clean()
    return failures


def main():
    values = arguments()
    enter_namespace()
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    failures = 0
    for index, kind in enumerate(values.on):
        share = (values.kills + index) // len(values.on)
        failures += torture(kind, max(share, 1), values, seed)
    verdict = "everything held" if failures == 0 else f"{failures} FAILED"
    print(f"# seed {seed}: {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
