#!/usr/bin/env python3
"""Takes restore points of QEMU guests, boots, writes, kills and troubles them meanwhile.

A writer in the guest numbers its records and writes each to the first disk, flushes it, then to the second. Every
point is restored: the disks have to show one instant of that, between what the writer had done before and after the
pass, on file systems that are whole; without a journal to replay where the guest was frozen. Every few points the
guest is brought to rest, and the restored disks are compared with the files that QEMU keeps, byte for byte.

  points     raw and qcow2 disks, with a filter that stays and without, frozen and not, paused and not
  host       disks of the host, of a guest that is only held still
  kills      SIGKILL and SIGTERM to strobe, SIGKILL to QEMU, at random moments
  troubles   full scratch space, reboots, hot-plugging, resizing, other clients, spoilt bitmaps, absent agents;
             disks with threads have to be refused
  restore    restored images, of a second guest that boots and goes on, and plugged into the one that writes
  libvirt    a domain: points, kills, its definition, a second one of it, a restored disk attached to it; libvirtd
             killed and hung, the domain destroyed, saved and stopped, disks resized and attached, others' jobs,
             checkpoints deleted and forgotten, full scratch space, hung and late agents

Exit status: 0 everything held, 1 something didn't, 2 wrong usage."""

import argparse
import os
import random
import sys
import time

import guests_kills
import guests_libvirt
import guests_points
import guests_restore
import guests_troubles
from guests_machine import KINDS
from rig import Failure, enter_namespace, run

# Beside this folder; guests_machine finds it.
from place import Place, guest_cache

PARTS = ("points", "host", "kills", "troubles", "restore", "libvirt")
# The guests of a small run, by part, and its troubles.
SMALL = {"points": ["raw", "qcow2"], "kills": ["file"], "troubles": ["qcow2"],
         "restore": ["qcow2"]}
SMALL_TROUBLES = ["too_small", "removed"]


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--small", action="store_true", help="a minute's choice of everything")
    parser.add_argument("--points", type=int, default=50, metavar="N", help="each way (default: 50)")
    parser.add_argument("--compare-each", type=int, default=10, metavar="N",
                        help="after so many points one of the guest at rest (default: 10)")
    parser.add_argument("--kills", type=int, default=20, metavar="N",
                        help="of each kind and guest (default: 20)")
    parser.add_argument("--parts", default=",".join(PARTS), metavar="P,P",
                        help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--guests", metavar="G,G", type=lambda text: text.split(","),
                        help=f"of {','.join(KINDS)} (default: all)")
    parser.add_argument("--troubles", metavar="T,T", help="only those whose names have one of these words",
                        type=lambda text: text.split(","))
    parser.add_argument("--cache", metavar="DIR", help="where the guest is built (see Tests/Guest/build-guest)")
    parser.add_argument("--seed", type=int, metavar="N", help="default: random")
    values = parser.parse_args()
    values.parts = values.parts.split(",")
    for part in values.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}")
    return values


class Loops:
    """Loop devices that go with the place."""

    def __init__(self, place):
        self.place = place

    def attach(self, path):
        device = run(["losetup", "-f", "--show", path]).stdout.strip()
        # Found by its file: the number of a device that is gone may be somebody else's by now.
        self.place.undo(lambda: run(["losetup", "-d", device])
                        if device in run(["losetup", "-n", "-O", "NAME", "-j", path]).stdout.split() else None)
        return device


def torture(values, seed, place, cache):
    """Runs the parts; returns how many failures there were."""
    generator = random.Random(seed)
    failures = 0
    of = values.guests and dict.fromkeys(PARTS, values.guests) or (SMALL if values.small else {})
    if values.small:
        values.points, values.compare_each, values.kills = 2, 4, 1
        values.troubles = values.troubles or SMALL_TROUBLES
    bodies = {
        "points": lambda: guests_points.points(
            place, values.strobe, cache, values.points, values.compare_each, of.get("points")),
        "host": lambda: guests_points.host_disks(
            place, values.strobe, cache, Loops(place).attach, max(2, values.points // 10)),
        "kills": lambda: guests_kills.kills(
            place, values.strobe, cache, values.kills, generator, of.get("kills")),
        "troubles": lambda: guests_troubles.troubles(
            place, values.strobe, cache, seed, of.get("troubles"), values.troubles),
        "restore": lambda: guests_restore.restores(
            place, values.strobe, cache, max(1, values.points // 10), of.get("restore")),
        "libvirt": lambda: guests_libvirt.libvirt(
            place, values.strobe, cache, values.points, values.compare_each, values.kills, generator,
            values.small, values.troubles)}
    for part in values.parts:
        begin = time.monotonic()
        try:
            failures += bodies[part]() or 0
        except Failure as failure:
            failures += 1
            print(f"{part}: FAILED: {failure}", flush=True)
        print(f"# {part}: {time.monotonic() - begin:.0f} s", flush=True)
    return failures


def main():
    values = arguments()
    enter_namespace()
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    values.strobe = os.path.abspath(values.strobe)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    cache = guest_cache(values.cache)
    place = Place("guests")
    try:
        failures = torture(values, seed, place, cache)
    finally:
        place.clean()
    print(f"# seed {seed}: {'everything held' if failures == 0 else f'{failures} FAILED'}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
