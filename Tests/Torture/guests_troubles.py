"""Whatever else may go wrong with a guest while, before and after a point of it is taken; each once.

After each the guest has to live and write, and the next point has to be whole and leave nothing behind."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import leftovers
from guests_machine import KINDS, NAMES, Machine, Run, disks_of, reasons
from disk import Disk
from qmp import Monitor, Refused
from rig import Failure, run

NOTICE = 60


def free_bytes(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Ended:
    """A snapshot that came to an end, whatever it is."""

    def __init__(self, ended):
        self.status, output, self.errors = ended
        self.point = json.loads(output) if self.status in (0, 3) else None
        if self.status not in (0, 1, 3) or self.status == 1 and not self.errors.strip():
            raise Failure(f"strobe ended with status {self.status}: {self.errors.strip()[-400:]}")

    def __str__(self):
        if self.point:
            return f"a point ({self.point['consistency']}, status {self.status})"
        return self.errors.strip().splitlines()[-1]

    def expect_failure(self, *words):
        """It failed, and said one of the words."""
        if self.point:
            raise Failure("a point was taken, and should not have been")
        if not any(word in self.errors.lower() for word in words):
            raise Failure(f"the message names none of {words}: {self.errors}")
        return str(self)


class Provoking:
    """A machine in trouble. Each method whose name begins with `when_` is one, and returns what came of it.

    Attributes:
        within: seconds of a snapshot in one of whose moments something is done.
    """

    within = 0.4

    def __init__(self, machine, generator):
        self.machine, self.guest, self.random = machine, machine.guest, generator
        machine.checked_point(is_increment=False)

    def names(self, words=None):
        """Of all troubles, or of those whose names have one of the words."""
        return [name for name in dir(self) if name.startswith("when_")
                and (not words or any(word in name for word in words))]

    def attempt(self, scratch=None):
        return Ended(self.machine.start(scratch).wait(NOTICE))

    def keep(self, ended):
        """A point that was taken in spite of all has to show one instant."""
        if ended.point:
            self.machine.expect_restorable(ended.point, is_clean=False)
        return ended

    def whole_after(self):
        """The next point has to be read whole, and to say why; it is compared byte for byte."""
        point = self.machine.compared_point()
        whole = reasons(point)
        if not whole:
            raise Failure("no disk was read whole")
        return "; ".join(sorted(set(whole.values())))

    @contextlib.contextmanager
    def overwriting(self):
        """The guest overwrites 100 MiB of each disk again and again."""
        # What was never written takes no space when it is overwritten.
        self.guest.command("for disk in os data; do dd if=/dev/zero of=/disks/$disk/load bs=1M count=100; done; sync")
        self.guest.command(
            "(while :; do for disk in os data; do dd if=/dev/zero of=/disks/$disk/load bs=1M count=100 "
            "conv=notrunc,fsync; done; done) >/dev/null 2>&1 & echo $! >/run/load.pid")
        try:
            yield
        finally:
            self.guest.command("kill $(cat /run/load.pid); killall dd; rm -f /disks/*/load", check=False)

    def during(self, action, limit=NOTICE):
        """Does something at a random moment of a snapshot."""
        run_ = self.machine.start()
        time.sleep(self.random.random() * self.within)
        said = action()
        return self.keep(Ended(run_.wait(limit))), said

    def try_to(self, command, **values):
        """What somebody asks of QEMU, which may refuse."""
        try:
            self.guest.monitor.call(command, **values)
            return "done"
        except Refused as refused:
            return f"refused ({refused.description})"

    # What the one and the other way to the guest's disks meet.

    @contextlib.contextmanager
    def small_scratch_space(self, mebibytes):
        """A file system of its own; nothing may stay there."""
        small = self.machine.place.make("small")
        run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "strobe-test", small])
        try:
            yield small
            left = os.listdir(small)
            if left:
                raise Failure(f"left in the scratch space: {left}")
        finally:
            run(["umount", "-l", small])

    def own_exports(self):
        return self.guest.monitor.call("query-block-exports")

    @staticmethod
    def wait_for(condition, limit=60):
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise Failure(f"what the test waits for doesn't happen within {limit} s")
            time.sleep(0.005)

    def expect_no_errors(self):
        """The guest's kernel met no I/O error."""
        found = self.guest.command("dmesg | grep -iE 'i/o error|remount' || true")
        if found:
            raise Failure(f"the guest met errors: {found}")

    def when_the_guest_reboots_meanwhile(self):
        # libvirt may take minutes to end the job (LibvirtJob.endSeconds).
        ended, _ = self.during(self.guest.reset, 240)
        self.guest.connect()
        self.guest.start_writer()
        return str(ended)

    def without_agent(self, ended, status=(0, 1, 3)):
        self.keep(ended)
        if ended.status not in status:
            raise Failure(f"status {ended.status}: {ended}")
        if ended.point and ended.point["consistency"] != "CrashConsistent":
            raise Failure(f"{ended.point['consistency']} without the agent")
        return str(ended)

    def when_the_agent_refuses_to_freeze(self):
        self.restart_agent("-b guest-fsfreeze-freeze")
        try:
            return self.without_agent(self.attempt())
        finally:
            self.restart_agent("")

    def when_the_hook_in_the_guest_fails(self):
        self.guest.command("touch /run/hook-fails")
        try:
            return self.without_agent(self.attempt())
        finally:
            self.guest.command("rm /run/hook-fails")

    def restart_agent(self, option):
        self.guest.command(
            "kill $(cat /run/agent.pid); sleep 0.3; port=$(grep -l org.qemu.guest_agent.0 "
            "/sys/class/virtio-ports/*/name); port=${port%/name}; /usr/sbin/qemu-ga -m virtio-serial "
            f"-p /dev/${{port##*/}} -t /run -F/bin/fsfreeze-hook {option} >/dev/null 2>&1 & "
            "echo $! >/run/agent.pid; sleep 0.3")


class Troubles(Provoking):
    """Of a guest that Strobe takes through a monitor of its QEMU."""

    # The scratch space.

    def when_the_scratch_space_is_too_small(self):
        with self.small_scratch_space(2) as small:
            return self.attempt(small).expect_failure("scratch", "space")

    def when_the_scratch_space_runs_out(self):
        """Strobe is held up until what the guest overwrites has filled it: that costs the point, never the guest."""
        # Without pauses a job that could stop the guest is refused so little.
        self.machine.may_pause = True
        for _ in range(8):
            ended = self.fill_the_scratch_space()
            self.expect_no_errors()
            if not ended.point:
                return ended.expect_failure("scratch", "space")
            # Everything had been read before it was full.
            self.machine.expect_restorable(ended.point, is_clean=False)
        raise Failure("the scratch space never ran out before everything was read")

    def fill_the_scratch_space(self):
        with self.small_scratch_space(70) as small, self.overwriting():
            run_ = self.machine.start(small)
            self.wait_for(lambda: self.own_exports() or run_.process.poll() is not None)
            run_.process.send_signal(signal.SIGSTOP)
            try:
                self.wait_for(lambda: free_bytes(small) < 4 << 20 or run_.process.poll() is not None)
                self.guest.expect_alive()
            finally:
                run_.process.send_signal(signal.SIGCONT)
            return Ended(run_.wait(NOTICE))

    # The guest's own doings.

    def small_disk(self):
        first = self.guest.disks[0]
        return Disk("more", megabytes=32, has_filter=first.has_filter, is_bare=first.is_bare)

    def when_a_disk_was_plugged_and_is_unplugged(self):
        self.guest.plug(self.small_disk())
        more = self.attempt()
        self.machine.baseline.nodes.update(leftovers.named_nodes(self.guest.monitor))
        disks = [disk["name"] for disk in more.point["disks"]] if more.point else str(more)
        self.guest.unplug("more")
        less = self.attempt()
        return f"with it: {disks}; without: {less}"

    def when_a_disk_is_plugged_and_unplugged_meanwhile(self):
        disk = self.small_disk()
        plugged, _ = self.during(lambda: self.guest.plug(disk))
        unplugged, _ = self.during(lambda: self.guest.unplug("more"))
        return f"plugged: {plugged}; unplugged: {unplugged}"

    def when_a_disk_grew(self):
        disk = self.guest.disk("data")
        self.guest.resize("data", disk.megabytes + 33)
        point = self.machine.compared_point()
        size = next(found["size"] for found in point["disks"] if found["name"] == "data")
        if size != disk.megabytes << 20:
            raise Failure(f"the point's disk has {size} bytes, the guest's {disk.megabytes << 20}")
        return f"{reasons(point) or 'an increment'}"

    def when_a_disk_grows_meanwhile(self):
        disk = self.guest.disk("data")
        size = disk.megabytes + 17 << 20
        ended, said = self.during(
            lambda: self.try_to("block_resize", node_name=disk.top, size=size))
        nodes = leftovers.named_nodes(self.guest.monitor)
        disk.megabytes = nodes[disk.node]["image"]["virtual-size"] >> 20
        return f"resizing: {said}; {ended}"

    # Others at the monitor.

    def when_a_second_client_asks_all_the_time(self):
        stop = threading.Event()
        asked = []

        def ask():
            while not stop.is_set():
                for command in ("query-block", "query-jobs", "query-named-block-nodes"):
                    self.guest.monitor.call(command)
                    asked.append(command)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            ended = self.keep(self.attempt())
        finally:
            stop.set()
            asking.join()
        if not ended.point:
            raise Failure(f"no point: {ended}")
        return f"{ended}, while {len(asked)} questions were asked"

    def when_the_monitor_is_taken(self):
        other = Monitor(self.guest.monitor_socket)
        try:
            return self.attempt().expect_failure("monitor", "qmp", "socket", "greet")
        finally:
            other.close()

    # Bitmaps.

    def own_bitmaps(self):
        found = leftovers.own_bitmaps(self.guest.monitor)
        if not found:
            raise Failure("Strobe has no bitmaps: nothing to spoil")
        return found

    def when_a_bitmap_was_removed(self):
        node, name = self.own_bitmaps()[0]
        self.guest.monitor.call("block-dirty-bitmap-remove", node=node, name=name)
        return self.whole_after()

    def when_a_bitmap_was_replaced(self):
        """The same name, another granularity. Of what was written in between, one page, it knows nothing."""
        disk = self.guest.disk("os")
        self.guest.command("head -c 4096 /dev/zero >/disks/os/page; sync")
        self.guest.stop_writer()
        self.machine.snapshot()
        name = dict(self.own_bitmaps())[disk.node]
        self.guest.monitor.call("block-dirty-bitmap-remove", node=disk.node, name=name)
        self.guest.command("head -c 4096 /dev/urandom | dd of=/disks/os/page conv=notrunc,fsync")
        self.guest.monitor.call("block-dirty-bitmap-add", node=disk.node, name=name, granularity=4096)
        self.guest.start_writer()
        return self.whole_after()

    def when_a_bitmap_was_disabled(self):
        node, name = self.own_bitmaps()[0]
        self.guest.monitor.call("block-dirty-bitmap-disable", node=node, name=name)
        self.guest.mark()
        return self.whole_after()

    def when_qemu_was_killed(self):
        """A bitmap that a qcow2 keeps is inconsistent then; one of a raw disk is gone."""
        # One that was kept when QEMU ended in order, and loaded again.
        self.guest.quit()
        self.guest.boot()
        self.guest.start_writer()
        point, *_ = self.machine.checked_point(is_increment=False)
        kept = reasons(point) or "an increment"
        self.guest.kill()
        self.guest.boot()
        self.guest.start_writer()
        return f"after a restart in order: {kept}; after a kill: {self.whole_after()}"

    # The agent.

    def words_with_agent(self, path, freeze):
        """Of a snapshot with another agent."""
        words = self.machine.words()
        words[words.index("--guest-agent") + 1] = path
        words[words.index("--freeze") + 1] = freeze
        return words

    def with_agent(self, path, freeze="auto"):
        return Ended(Run(self.machine, self.words_with_agent(path, freeze)).wait(NOTICE))

    def when_there_is_no_agent(self):
        missing = self.machine.place.path("missing.sock")
        asked = self.with_agent(missing, "guest")
        if asked.status == 0:
            raise Failure(f"status 0, although --freeze guest is not possible: {asked}")
        return f"{self.without_agent(self.with_agent(missing))}; --freeze guest: {self.without_agent(asked)}"

    def when_the_agent_hangs(self):
        """Somebody accepts, reads, and says nothing."""
        path = self.machine.place.path("hung.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()), daemon=True)
        thread.start()
        try:
            return self.without_agent(self.with_agent(path))
        finally:
            server.close()
            for connection, _ in accepted:
                connection.close()
            os.unlink(path)


def one_trouble(machine, troubles, name):
    """Meets one trouble; then everything has to work."""
    machine.is_frozen, machine.may_pause = True, troubles.random.random() < 0.5
    said = getattr(troubles, name)()
    machine.guest.expect_writing()
    machine.guest.expect_alive()
    machine.checked_point(is_increment=False)
    return said


def threads_are_refused(place, program, cache):
    """Disks with threads of their own, which QEMU 7.2 does not survive: refused, and QEMU lives."""
    machine = Machine(place, program, cache, "threads",
                      [Disk(name, has_iothread=True) for name in NAMES])
    said = Ended(machine.start().wait(NOTICE))
    machine.guest.expect_alive()
    machine.guest.expect_writing()
    machine.baseline.expect(machine.guest.monitor)
    print(f"disks with threads: {said}", flush=True)
    said.expect_failure("iothread", "thread")
    machine.remove()


def troubles(place, program, cache, seed, only=None, words=None):
    """Every trouble with every kind of guest. Returns how many failed.

    Args:
        only: some kinds of guests.
        words: parts of troubles' names.
    """
    failures = 0
    if not only:
        threads_are_refused(place, program, cache)
    for kind in only or KINDS[:3]:
        machine = Machine(place, program, cache, f"trouble-{kind}", disks_of(kind))
        all_troubles = Troubles(machine, random.Random(seed))
        for name in all_troubles.names(words):
            title = name.removeprefix("when_").replace("_", " ")
            try:
                print(f"{machine.name:18} {title}: {one_trouble(machine, all_troubles, name)}", flush=True)
            except (Failure, OSError, subprocess.SubprocessError) as failure:
                failures += 1
                print(f"{machine.name:18} {title}: FAILED: {failure}", flush=True)
                machine.recover()
        machine.remove()
    return failures
