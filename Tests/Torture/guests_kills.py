"""Kills Strobe, or QEMU, at random moments of a snapshot of a guest whose writer never stops."""

import signal
import time

from guests_machine import KINDS, Machine, disks_of, reasons
from rig import Failure

# Seconds until the guest has to write again, and until Strobe has to notice that QEMU is gone.
DEADLINE = 15
NOTICE = 30


class Killer:
    """A machine whose snapshots are killed."""

    def __init__(self, machine, generator):
        self.machine, self.random = machine, generator
        _, self.seconds, _ = machine.checked_point(is_increment=False)

    def choose(self):
        """The next setting: frozen or not, paused or not."""
        self.machine.is_frozen = self.random.random() < 0.6
        self.machine.may_pause = self.random.random() < 0.5

    def start(self):
        """A snapshot that has run for a random time."""
        run = self.machine.start()
        time.sleep(self.random.random() * self.random.choice((0.2, 1)) * self.seconds)
        return run

    def next_point(self):
        """What every kill has to leave possible. Returns why disks were read whole."""
        machine = self.machine
        point, *_ = machine.checked_point(is_increment=False)
        return reasons(point)

    def engine(self, number):
        """Strobe gets a signal. SIGKILL may leave things until the next pass, SIGTERM may not."""
        machine = self.machine
        self.choose()
        known = machine.points()
        run = self.start()
        run.process.send_signal(number)
        status, _, errors = run.wait()
        begin = time.monotonic()
        machine.guest.expect_writing()
        seconds = time.monotonic() - begin
        if seconds > DEADLINE:
            raise Failure(f"the guest stood still for {seconds:.1f} s")
        machine.guest.expect_alive()
        if number != signal.SIGKILL:
            machine.expect_tidy()
        if status not in (0, 3) and number != signal.SIGKILL and machine.points() != known:
            raise Failure(f"status {status}, and yet there is a new point: {errors}")
        whole = self.next_point()
        return f"status {status}, writing again after {seconds:.2f} s; next: {whole or 'an increment'}"

    def qemu(self):
        """QEMU dies. Strobe has to say so, soon; after a restart the next point is taken."""
        machine = self.machine
        self.choose()
        run = self.start()
        machine.guest.kill()
        begin = time.monotonic()
        status, _, errors = run.wait(NOTICE)
        seconds = time.monotonic() - begin
        if status not in (0, 1, 3) or status == 1 and not errors.strip():
            raise Failure(f"QEMU died: strobe ended with status {status}: {errors.strip()[-400:]}")
        machine.guest.boot()
        machine.guest.start_writer()
        whole = self.next_point()
        if machine.guest.disks[0].format == "raw" and set(whole) != set(machine.guest.writer_disks):
            raise Failure(f"bitmaps in memory can't have outlived QEMU, and yet: {whole or 'increments'}")
        last = (errors.strip().splitlines() or ["no message"])[-1]
        return f"status {status} after {seconds:.2f} s ({last}); next: {whole or 'an increment'}"


def kills(place, program, cache, rounds, generator, only=None):
    """Kills of each kind. `only`: names of machines. Returns how many failed."""
    failures = 0
    for kind in only or KINDS[:3]:
        machine = Machine(place, program, cache, f"kill-{kind}", disks_of(kind))
        killer = Killer(machine, generator)
        kinds = {"SIGKILL": lambda: killer.engine(signal.SIGKILL), "QEMU": killer.qemu,
                 "SIGTERM": lambda: killer.engine(signal.SIGTERM)}
        for number in range(rounds * len(kinds)):
            what = list(kinds)[number % len(kinds)]
            try:
                print(f"kill {what:7} {machine.name}: {kinds[what]()}", flush=True)
            except Failure as failure:
                failures += 1
                print(f"kill {what:7} {machine.name}, round {number}, frozen {machine.is_frozen}, "
                      f"pause {machine.may_pause}: FAILED: {failure}", flush=True)
                machine.recover()
        machine.compared_point()
        machine.remove()
    return failures
