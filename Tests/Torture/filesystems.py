#!/usr/bin/env python3
"""Takes points of file systems that are written to, and checks each against what the disks held while
they were frozen, byte for byte.

For each kind: disks are loop devices on files of an XFS, so that they can be cloned while strobe's
guardian, by a library loaded into it, waits between the freeze and the thaw. The clones are the truth.
Each restored disk must equal them, be a whole file system, and need no repair. In the end the disks are
read whole once more, and what changed since the last tracked point must be what really did.

Exit status: 0 everything held, 1 something didn't, 2 wrong usage."""

import argparse
import os
import random
import sys
import time

from checks import changed_chunks
from compare import differences, text
from points import COLLECTION, LAYOUTS, Machine
from rig import Failure, Rig, enter_namespace



def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--points", type=int, default=50, metavar="N", help="of all kinds together")
    parser.add_argument("--kinds", default=",".join(LAYOUTS), metavar="K,K",
                        help=f"of {','.join(LAYOUTS)} (default: all)")
    parser.add_argument("--track", default="auto", choices=("keep", "auto", "none"),
                        help="as strobe snapshot takes it")
    parser.add_argument("--seed", type=int, metavar="N", help="default: random")
    parser.add_argument("--trim", action="store_true",
                        help="discard free space all the time, also under the freeze, where it is a "
                        "write: points may be Inconsistent then, but not wrong")
    parser.add_argument("--failures", type=int, default=5, metavar="N",
                        help="give up after so many (default: 5)")
    values = parser.parse_args()
    values.kinds = values.kinds.split(",")
    for kind in values.kinds:
        if kind not in LAYOUTS:
            parser.error(f"there is no kind {kind}")
    return values


def line(kind, number, point, load, odd, seconds):
    window = point["freezeWindowMilliseconds"] or 0
    disks = point["disks"]
    ways = "/".join(sorted({f"{disk['changeSource']}+{disk.get('cut', '')}" for disk in disks}))
    more = f", {odd} bytes written under the freeze" if odd else ""
    more += "".join(f", warning: {text}" for text in point["warnings"])
    print(f"{kind:12} {number:4} window {window - point['cloneMilliseconds']:7.1f} ms "
          f"(+ {point['cloneMilliseconds']:.0f} for clones), {ways}, "
          f"read {sum(disk['readBytes'] for disk in disks) >> 10} KiB, "
          f"changed {sum(disk['changedBytes'] for disk in disks) >> 10} KiB, {load}, "
          f"{seconds:.1f} s: {point['consistency'] if point['status'] else 'OK'}{more}", flush=True)


def expect_tracked(machine, number, point):
    """From the second point on the trackers have to spare the reading."""
    if machine.track != "keep" or number == 1 or not machine.is_tracking():
        return
    for disk in point["disks"]:
        if disk["changeSource"] != "tracked":
            raise Failure(f"disk {disk['name']} was not tracked: {disk.get('scanReason')}; "
                          f"{point['warnings']}")


def check_at_the_end(machine):
    """With everything at rest: the whole disks are read, and what changed is what differs."""
    machine.rig.end_children()
    for system in machine.systems:
        machine.rig.unmount(system.mount)
    point = machine.take(track="none")
    machine.restore()
    difference = machine.strobe.json("diff", f"{COLLECTION}@-1", f"{COLLECTION}@latest")
    for disk, found in zip(machine.disks, difference["disks"]):
        if not os.path.exists(disk.file + ".before"):
            raise Failure("there is no truth of an earlier point to compare with")
        wrong = differences(machine.image(disk), disk.device)
        if wrong:
            raise Failure(f"{disk.name}: the last point differs from the device: {text(wrong)}")
        size = point["chunkSize"]
        really = changed_chunks(disk.file + ".before", disk.file, size)
        told = set()
        for part in found["ranges"]:
            end = part["offset"] + part["length"]
            told.update(range(part["offset"] // size, (end + size - 1) // size))
        if told != really:
            raise Failure(f"{disk.name}: chunks told only {sorted(told - really)[:9]}, "
                          f"changed only {sorted(really - told)[:9]}")
    machine.strobe.command("verify", COLLECTION)


def torture(kind, count, generator, values):
    """Returns how many points failed."""
    rig = Rig("filesystems")
    failures = 0
    windows = []
    try:
        machine = Machine(rig, kind, generator, os.path.abspath(values.strobe), values.track,
                          trims=values.trim)
        time.sleep(0.5)
        for number in range(1, count + 1):
            begin = time.monotonic()
            load = machine.change_load()
            try:
                point, odd = machine.checked_point()
                expect_tracked(machine, number, point)
                windows.append(
                    (point["freezeWindowMilliseconds"] or 0) - point["cloneMilliseconds"])
                line(kind, number, point, load, odd, time.monotonic() - begin)
            except Failure as failure:
                failures += 1
                print(f"{kind:12} {number:4} {load}: FAILED: {failure}", flush=True)
                if failures >= values.failures:
                    return failures
        check_at_the_end(machine)
        windows.sort()
        if windows:
            print(f"{kind:12} end: OK; window: median {windows[len(windows) // 2]:.1f} ms, "
                  f"longest {windows[-1]:.1f} ms", flush=True)
    except Failure as failure:
        failures += 1
        print(f"{kind:12} FAILED: {failure}", flush=True)
    finally:
        rig.clean()
    return failures


def main():
    values = arguments()
    enter_namespace()
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    failures = 0
    for index, kind in enumerate(values.kinds):
        share = (values.points + index) // len(values.kinds)
        # Of its own: one kind alone can be run again with the same seed.
        failures += torture(kind, max(share, 2), random.Random(f"{seed} {kind}"), values)
    verdict = "everything held" if failures == 0 else f"{failures} FAILED"
    print(f"# seed {seed}: {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
