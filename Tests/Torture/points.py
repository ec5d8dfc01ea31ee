"""Points that are checked against the truth: clones of the disks, made while they were frozen."""

import fcntl
import json
import os
import time

from checks import check, check_order, explain
from compare import differences, part, text
from rig import Failure, run
from window import Strobe
from writers import Churn, Control, probe, trim_always, write_in_order

COLLECTION = "c"


class Disk:
    """A loop device on a file that can be cloned."""

    def __init__(self, rig, name, size, direct):
        self.name = name
        self.file = os.path.join(rig.host, f"{name}.raw")
        rig.sparse(self.file, size)
        self.device = rig.attach(self.file, *(["--direct-io=on"] if direct else []))

    def clone(self, suffix):
        """A copy that shares the blocks (FICLONE writes out what is dirty): milliseconds."""
        run(["cp", "--reflink=always", self.file, self.file + suffix])


class FileSystem:
    def __init__(self, kind, disks, mount):
        self.kind, self.disks, self.mount = kind, disks, mount


LAYOUTS = {
    "ext4": [("ext4", 1, 256)],
    "xfs": [("xfs", 1, 320)],
    "btrfs": [("btrfs", 1, 400)],
    "btrfs-raid0": [("btrfs", 2, 320)],
    "two-disks": [("ext4", 1, 256), ("xfs", 1, 320)],
}


class Machine:
    """Disks with file systems and writers, and one collection of them."""

    def __init__(self, rig, kind, random, program, track, probes=False, stop_limit=8000,
                 trims=False):
        self.rig, self.random, self.track = rig, random, track
        self.strobe = Strobe(rig, program, stop_limit)
        self.control = Control()
        self.trim_lock = rig.path("trim.lock")
        self.has_trims = trims
        self.hold_trims = open(self.trim_lock, "w", encoding="utf-8")
        self.systems = []
        self.restored = rig.path("restored")
        self.has_points = False
        direct = random.random() < 0.5
        print(f"# {kind}: loop devices {'with' if direct else 'without'} direct I/O", flush=True)
        for name, count, mebibytes in LAYOUTS[kind]:
            self.make(name, count, mebibytes << 20, direct)
        self.disks = [disk for system in self.systems for disk in system.disks]
        rig.at_end.insert(0, self.stop_trackers)
        self.start_writers(probes)

    def make(self, kind, count, size, direct):
        first = sum(len(system.disks) for system in self.systems)
        disks = [Disk(self.rig, f"d{first + index}", size, direct) for index in range(count)]
        devices = [disk.device for disk in disks]
        if kind == "btrfs" and count > 1:
            # Striped metadata (-m raid0) on small disks makes Linux 6.18 abort transactions with EIO
            # within seconds, without any snapshot.
            run(["mkfs.btrfs", "-q", "-f", "-d", "raid0", "-m", "raid1", *devices])
        else:
            run([f"mkfs.{kind}", "-q", *devices])
        options = ",".join(f"device={device}" for device in devices) if kind == "btrfs" else ""
        mount = self.rig.mount(devices[0], f"mount-{first}", options, kind)
        self.systems.append(FileSystem(kind, disks, mount))

    def start_writers(self, probes):
        for index, system in enumerate(self.systems):
            for number in range(2 if len(self.systems) == 1 else 1):
                churn = Churn(system.mount, f"w{number}", self.random.random(), self.control,
                              self.trim_lock)
                self.rig.start(churn.run)
            if self.has_trims:
                self.rig.start(lambda system=system: trim_always(system.mount, self.random.random()))
            if probes:
                self.rig.start(lambda system=system, index=index: probe(
                    system.mount, self.control, index))
        if len(self.systems) > 1:
            mounts = [system.mount for system in self.systems]
            self.rig.start(lambda: write_in_order(mounts, self.control))

    def stop_trackers(self):
        if self.track == "keep":
            for disk in self.disks:
                self.strobe.command("track", "stop", disk.device, check=False, timeout=30)

    def is_tracking(self):
        """Whether the program has trackers at all."""
        result = self.strobe.command("track", "status", "--json", check=False)
        return result.returncode == 0 and self.disks[0].device in result.stdout

    def snapshot_words(self, *more):
        words = ["snapshot", COLLECTION, "--json", "--quiet", *more]
        if not self.has_points:
            words += [f"--disk={disk.name}={disk.device}" for disk in self.disks]
        return words

    def take(self, *more, track=None):
        """Takes a point, clones the disks at both ends of the window, and checks status and level.

        Returns:
            the point, as `--json` tells it, with `cloneMilliseconds`: how much longer the window was
            because of the clones.
        """
        words = self.snapshot_words(*more, f"--track={track or self.track}")
        running = self.strobe.start(
            words, ("before-freeze", "held", "thaw"), systems=len(self.systems))
        seconds = 0.0
        while stop := running.wait_for_stop():
            place, pid = stop
            begin = time.monotonic()
            if place == "before-freeze":
                if not self.has_trims:
                    fcntl.flock(self.hold_trims, fcntl.LOCK_EX)
                seconds = 0.0
            else:
                for disk in self.disks:
                    disk.clone("." + place)
                seconds += time.monotonic() - begin
            running.go_on(place, pid)
        status, output, errors = running.wait()
        fcntl.flock(self.hold_trims, fcntl.LOCK_UN)
        if status not in (0, 3):
            raise Failure(f"strobe snapshot: status {status}: {errors.strip()}")
        self.has_points = True
        point = json.loads(output)
        point["cloneMilliseconds"] = seconds * 1000
        point["status"] = status
        return point

    def expect_frozen_level(self, point):
        if self.has_trims and point["status"] == 3:
            # A discard gets through the freeze; then the point has to say that the disk was written to.
            return
        if point["status"] != 0 or point["consistency"] != "FileSystemConsistent":
            raise Failure(f"status {point['status']}, {point['consistency']}: "
                          f"{point['consistencyReasons']}; written under the freeze: "
                          f"{self.written_under_freeze()}")

    def written_under_freeze(self):
        """What changed between the two ends of the window, by disk; nothing, normally."""
        found = {}
        for disk in self.disks:
            ranges = differences(disk.file + ".held", disk.file + ".thaw")
            if ranges:
                found[disk.name] = text(ranges)
        return found

    def restore(self):
        self.strobe.command("restore", f"{COLLECTION}@latest", "--to", self.restored,
                            "--overwrite", "--quiet")

    def image(self, disk):
        return os.path.join(self.restored, f"{disk.name}.raw")

    def expect_truth(self):
        """The restored disks are the clones, byte for byte.

        Returns:
            bytes that were written while everything was frozen: there both contents are true.
        """
        odd = 0
        for disk in self.disks:
            image, late = self.image(disk), disk.file + ".thaw"
            if os.path.getsize(image) != os.path.getsize(late):
                raise Failure(f"{disk.name}: {os.path.getsize(image)} bytes were restored")
            early = disk.file + ".held"
            ranges = differences(early, late)
            odd += sum(end - start for start, end in ranges)
            wrong = [found for found in differences(image, late)
                     if part(image, *found) != part(early, *found)]
            if wrong:
                older = [(name, disk.file + suffix) for name, suffix in
                         (("the point before", ".before"), ("now", ""))
                         if os.path.exists(disk.file + suffix)]
                raise Failure(
                    f"{disk.name} ({disk.device}) differs from what was frozen: {text(wrong)}; "
                    f"there: {explain(wrong, image, older)}")
        return odd

    def expect_sound(self):
        """Every file system is whole; the disks show one instant."""
        if len(self.systems) > 1:
            check_order(self.rig, [(system.kind, self.image(system.disks[0]))
                                   for system in self.systems])
        for system in self.systems:
            check(self.rig, system.kind, [self.image(disk) for disk in system.disks])

    def keep_truth(self):
        for disk in self.disks:
            if os.path.exists(disk.file + ".thaw"):
                os.replace(disk.file + ".thaw", disk.file + ".before")

    def checked_point(self, *more, sound=True):
        """A point that is all that it has to be; returns it and what was odd."""
        point = self.take(*more)
        odd = None
        try:
            if not os.path.exists(self.disks[0].file + ".thaw"):
                raise Failure(f"nothing was thawed: {point['consistency']}, "
                              f"{point['consistencyReasons']}, {point.get('frozen')}")
            self.restore()
            odd = self.expect_truth()
            if sound:
                self.expect_sound()
            self.expect_frozen_level(point)
        except Failure as failure:
            ways = [(disk["changeSource"], disk.get("cut"), disk.get("scanReason"))
                    for disk in point["disks"]]
            content = "" if odd is None else "the content is right, but "
            raise Failure(f"{content}{failure}; point {point['sequence']}, {ways}, "
                          f"warnings {point['warnings']}") from None
        finally:
            self.keep_truth()
        self.rig.check_writers()
        self.expect_writable()
        return point, odd

    def expect_writable(self):
        """A file system that met an error of its own tests nothing any more."""
        with open("/proc/mounts", encoding="utf-8") as file:
            for line in file:
                words = line.split()
                if any(words[1] == system.mount for system in self.systems) and (
                        "ro" in words[3].split(",")):
                    raise Failure(f"{words[1]} ({words[2]}) became read-only: see dmesg")

    def change_load(self):
        """Sets what the writers do while the next point is taken; returns its name."""
        choice = self.random.choice(("burst", "burst", "after a burst", "calm", "at rest"))
        if choice in ("burst", "after a burst"):
            self.control.mode = Control.BURST
            time.sleep(self.random.uniform(0.1, 0.8))
        if choice != "burst":
            self.control.mode = Control.PAUSE if choice == "at rest" else Control.CALM
        return choice
