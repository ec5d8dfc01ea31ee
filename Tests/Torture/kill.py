#!/usr/bin/env python3
"""Kills strobe, its guardian process, or both, at chosen and at random moments of a snapshot, and
checks that no file system stays frozen, that nothing half done is committed, and that the next points
are right.

  engine          SIGKILL to the engine: the guardian thaws
  guardian        SIGKILL to the guardian: the engine thaws and fails
  both            SIGKILL to both: file systems stay frozen, and `strobe thaw` repairs that
  stop            SIGSTOP to the engine: the guardian thaws at the deadline
  stop-guardian   SIGSTOP to the guardian: the engine ends it, and thaws

The disks are one ext4 and one XFS, written to all the time. Prints how long it took until both could
be written to again. After every kill a point is taken and compared with the truth, as filesystems.py
does.

Exit status: 0 everything held, 1 something didn't, 2 wrong usage."""

import argparse
import os
import random
import signal
import sys
import time

from points import COLLECTION, Machine
from rig import FITHAW, Failure, Rig, enter_namespace, freeze_ioctl

MAX_FREEZE = 3
GRACE = 10
RECORDS = "/run/strobe/frozen"
PLACES = ("before-freeze", "frozen-1", "held", "thaw", "thawed-1")
KINDS = ("engine", "guardian", "both", "stop", "stop-guardian")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of each kind")
    parser.add_argument("--what", default=",".join(KINDS), metavar="W,W",
                        help=f"of {','.join(KINDS)} (default: all)")
    parser.add_argument("--place", choices=PLACES + ("any",),
                        help="kill only there (places of window.c; any: at a random time)")
    parser.add_argument("--track", default="auto", choices=("keep", "auto", "none"),
                        help="as strobe snapshot takes it")
    parser.add_argument("--seed", type=int, metavar="N", help="default: random")
    parser.add_argument("--failures", type=int, default=5, metavar="N",
                        help="give up after so many (default: 5)")
    values = parser.parse_args()
    values.what = values.what.split(",")
    for what in values.what:
        if what not in KINDS:
            parser.error(f"there is no kind {what}")
    return values


class Round:
    """One snapshot that is interrupted."""

    def __init__(self, machine, what, generator, place=None):
        self.machine, self.what, self.random = machine, what, generator
        self.strobe = machine.strobe
        chosen = generator.choice(self.places())
        self.place = place or chosen
        self.systems = len(machine.systems)
        self.words = machine.snapshot_words(
            f"--max-freeze={MAX_FREEZE}s", f"--track={machine.track}")

    def places(self):
        if self.what == "both":
            return PLACES[1:4]
        if self.what == "stop-guardian":
            return PLACES[:4]
        if self.what == "stop":
            return PLACES[1:3]
        return PLACES + ("any",)

    def run(self):
        """Returns the seconds until both file systems could be written to."""
        before = self.strobe.points(COLLECTION)
        self.running = self.strobe.start(
            self.words, () if self.place == "any" else (self.place,), self.systems)
        pid = self.reach()
        time.sleep(self.random.choice((0, 0, self.random.random() * 0.03)))
        self.guardian_pid = pid
        self.moment = time.monotonic_ns()
        seconds = getattr(self, self.what.replace("-", "_"))(pid)
        self.expect_all_gone()
        self.expect_points(before)
        return seconds

    def reach(self):
        """Waits for the moment; returns the guardian's number, or None."""
        if self.place == "any":
            time.sleep(self.random.random() * 0.6)
            return next(iter(self.running.guardians()), None)
        stop = self.running.wait_for_stop()
        if stop is None:
            raise Failure(f"strobe ended before {self.place}: {self.running.wait()}")
        return stop[1]

    def go_on(self):
        if self.place != "any":
            self.running.go_on(self.place, self.guardian_pid)

    def signal_engine(self, number):
        if self.running.process.poll() is None:
            os.kill(self.running.pid, number)

    # What is done, by kind.

    def engine(self, _):
        self.signal_engine(signal.SIGKILL)
        self.go_on()
        self.running.wait()
        return self.wait_writable()

    def guardian_killed(self, pid):
        if pid:
            self.running.kill_guardian(pid, signal.SIGKILL)
        return self.wait_writable()

    def guardian(self, pid):
        seconds = self.guardian_killed(pid)
        self.expect_failure(self.guardian_words(), may_succeed=self.place == "any")
        return seconds

    def guardian_words(self):
        """At a random time there may have been no window yet, and the load may have ended the pass."""
        return ("guardian", "more was written") if self.place == "any" else ("guardian",)

    def both(self, pid):
        self.signal_engine(signal.SIGSTOP)
        self.running.kill_guardian(pid, signal.SIGSTOP)
        self.running.kill_guardian(pid, signal.SIGKILL)
        self.signal_engine(signal.SIGKILL)
        self.running.wait()
        while self.running.guardians():
            time.sleep(0.001)
        frozen = self.frozen_mounts()
        if not frozen:
            raise Failure("nothing stayed frozen: this round tested nothing")
        if self.random.random() < 0.3:
            self.snapshot_while_left_frozen(frozen)
        self.moment = time.monotonic_ns()
        result = self.strobe.command("thaw", check=False)
        if result.returncode != 0:
            raise Failure(f"strobe thaw: status {result.returncode}: {result.stderr}")
        for mount in frozen:
            if f"Thawed {mount}." not in result.stdout:
                raise Failure(f"strobe thaw doesn't say that it thawed {mount}: {result.stdout!r}")
        return self.wait_writable()

    def snapshot_while_left_frozen(self, frozen):
        """Must neither hang nor thaw what it didn't freeze, nor claim more than it knows."""
        running = self.strobe.start(self.words, (), self.systems)
        status, output, errors = running.wait(60)
        if status not in (1, 3) or '"FileSystemConsistent"' in output:
            raise Failure(f"a snapshot of file systems that were left frozen: status {status}: "
                          f"{output[:600]} {errors}")
        self.has_extra_point = status == 3
        still = self.frozen_mounts()
        if not set(frozen) <= set(still):
            raise Failure(f"a snapshot thawed what it had not frozen: {frozen}, now {still}")

    def stop(self, _):
        self.signal_engine(signal.SIGSTOP)
        self.go_on()
        seconds = self.wait_writable()
        self.signal_engine(signal.SIGCONT)
        self.expect_failure(("deadline", "longer than", "guardian"))
        return seconds

    def stop_guardian(self, pid):
        self.running.kill_guardian(pid, signal.SIGSTOP)
        self.go_on()
        seconds = self.wait_writable()
        self.expect_failure(("guardian", "longer than"))
        return seconds

    # What has to hold.

    def frozen_mounts(self):
        """Mount points where a write of the probes hangs: found by what they did in half a second."""
        moment = time.monotonic_ns()
        time.sleep(0.5)
        return [system.mount for index, system in enumerate(self.machine.systems)
                if self.machine.control.probe(index)[0] < moment and self.hangs(index)]

    def hangs(self, index):
        """A probe that is slow is no frozen file system: it gets more time."""
        moment = time.monotonic_ns()
        for _ in range(20):
            time.sleep(0.1)
            if self.machine.control.probe(index)[0] > moment - 500_000_000:
                return False
        return True

    def wait_writable(self):
        """Waits for writes that began after the moment, on all file systems."""
        limit = self.moment + int((MAX_FREEZE + GRACE) * 1e9)
        last = 0
        for index, system in enumerate(self.machine.systems):
            while True:
                start, end = self.machine.control.probe(index)
                if start >= self.moment:
                    last = max(last, end)
                    break
                if time.monotonic_ns() > limit:
                    raise Failure(
                        f"{system.mount} can't be written to {MAX_FREEZE + GRACE} s later")
                time.sleep(0.0005)
        return (last - self.moment) / 1e9

    def expect_failure(self, words, may_succeed=False):
        status, output, errors = self.running.wait(60)
        self.is_done = status == 0
        if status == 0 and may_succeed:
            return
        if status != 1:
            raise Failure(
                f"strobe ended with status {status} instead of 1: {output[:300]} {errors}")
        if not any(word in errors for word in words):
            raise Failure(f"the message names none of {words}: {errors}")

    def expect_all_gone(self):
        """No guardian and no record stays."""
        end = time.monotonic() + GRACE
        while self.running.guardians():
            if time.monotonic() > end:
                raise Failure("a guardian lives on")
            time.sleep(0.002)
        if self.what == "engine" and not self.had_guardian():
            # Killed between taking the locks and starting the guardian: nothing was frozen, and the
            # next pass removes the records.
            return
        left = records()
        if left:
            raise Failure(f"records are left: {left}")

    def had_guardian(self):
        return any(name.startswith("guardian.") for name in os.listdir(self.strobe.folder))

    def expect_points(self, before):
        """Nothing was committed, unless the command was through already."""
        after = self.strobe.points(COLLECTION)
        new = [point for point in after if point not in before]
        is_allowed = (self.place == "any" and self.what == "engine"
                      or getattr(self, "is_done", False) or getattr(self, "has_extra_point", False))
        if after[:len(before)] != before or (new and not is_allowed):
            raise Failure(f"points before: {before}, after: {after}")


def records():
    return os.listdir(RECORDS) if os.path.isdir(RECORDS) else []


def distribution(seconds):
    seconds = sorted(seconds)
    return (f"writable again after median {seconds[len(seconds) // 2] * 1000:.0f} ms, "
            f"nine tenths {seconds[len(seconds) * 9 // 10] * 1000:.0f} ms, "
            f"longest {seconds[-1] * 1000:.0f} ms")


def recover(machine):
    """After a failure: whatever hangs is ended, so that the next round has a chance."""
    machine.strobe.end()
    for system in machine.systems:
        freeze_ioctl(system.mount, FITHAW)
    if os.path.isdir(RECORDS):
        machine.strobe.command("thaw", check=False)


def one_round(machine, what, generator, place, is_sound):
    """Returns the place and the seconds until everything could be written to."""
    load = machine.change_load()
    test = Round(machine, what, generator, place)
    try:
        seconds = test.run()
        left = records()
        point, _ = machine.checked_point(sound=is_sound)
        if records():
            raise Failure(f"records are left after the next point: {records()}")
    except Failure as failure:
        raise Failure(f"at {test.place}, {load}: {failure}") from None
    ways = "/".join(disk["changeSource"] for disk in point["disks"])
    more = " (records were left)" if left else ""
    more += " (a point while frozen)" if getattr(test, "has_extra_point", False) else ""
    reasons = {disk.get("scanReason") for disk in point["disks"]} - {None}
    warnings = f", warnings {point['warnings']}" if point["warnings"] else ""
    print(f"{what:13} {test.place:13} {load:13} writable after {seconds * 1000:7.0f} ms{more}; "
          f"next point {ways} {'; '.join(reasons)}: OK{warnings}", flush=True)
    return seconds


def torture(values, seed):
    generator = random.Random(seed)
    rig = Rig("kill")
    failures = 0
    times = {}
    try:
        # A stop has to outlast whoever is to be killed or to run out of time there.
        machine = Machine(rig, "two-disks", generator, os.path.abspath(values.strobe), values.track,
                          probes=True, stop_limit=20_000)
        time.sleep(0.5)
        machine.checked_point()
        for number in range(values.rounds * len(values.what)):
            what = values.what[number % len(values.what)]
            try:
                seconds = one_round(
                    machine, what, generator, values.place, number % 5 == 0)
                times.setdefault(what, []).append(seconds)
            except Failure as failure:
                failures += 1
                print(f"{what:13} round {number}: FAILED: {failure}", flush=True)
                recover(machine)
                if failures >= values.failures:
                    break
        machine.checked_point()
        machine.strobe.command("verify", COLLECTION)
    except Failure as failure:
        failures += 1
        print(f"FAILED: {failure}", flush=True)
    finally:
        rig.clean()
    for what, seconds in times.items():
        print(f"{what:13} {len(seconds)} rounds: {distribution(seconds)}", flush=True)
    return failures


def main():
    values = arguments()
    enter_namespace()
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    failures = torture(values, seed)
    verdict = "everything held" if failures == 0 else f"{failures} FAILED"
    print(f"# seed {seed}: {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
