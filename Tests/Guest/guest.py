"""A QEMU guest that a test boots, writes in, troubles and looks at. It runs without KVM, in one thread.

    place = Place("example")
    guest = Guest(place, [Disk("os"), Disk("data", format="qcow2")]).boot()
    guest.start_writer()
"""

import os
import signal
import time
from dataclasses import dataclass

from commands import Commands
from place import Failure, guest_cache
from qmp import Agent, Monitor, Refused

ROOT_PORTS = 8
PATIENCE = 60


@dataclass
class Mark:
    """What the ordered writer did since the last mark."""

    seconds: float
    records: int
    longest_milliseconds: float
    number: int

    @property
    def rate(self):
        return self.records / self.seconds if self.seconds else 0.0


class Writing:
    """What the guest does when told: the ordered writer, its disks at rest.

    Needs `command`, `disks` and `writer_disks`.
    """

    def disk(self, name):
        return next(disk for disk in self.disks if disk.name == name)

    def start_writer(self, pause_microseconds=0):
        files = " ".join(f"/disks/{name}/records" for name in self.writer_disks)
        self.command(f"start-writer {pause_microseconds} {files}")

    def stop_writer(self):
        self.command("kill $(cat /run/writer.pid) && while kill -0 $(cat /run/writer.pid) 2>/dev/null; "
                     "do usleep 10000; done")

    def mark(self):
        """What the writer did since the last; waits while it stands still."""
        words = self.command("mark-writer").split()
        return Mark(float(words[1]), int(words[2]), int(words[3]) / 1000, int(words[4]))

    def expect_writing(self):
        """Fails when the writer doesn't get on."""
        before = self.mark().number
        after = self.mark().number
        if after <= before:
            raise Failure(f"the writer stands still at record {after}")
        return after

    def rest(self):
        """Brings the disks to rest: what their files hold is what the guest sees, and stays so."""
        self.command("for place in /disks/*; do mount -o remount,ro $place || exit 1; done; sync")

    def go_on(self):
        self.command("for place in /disks/*; do mount -o remount,rw $place || exit 1; done")


class Guest(Writing):
    """A guest.

    Attributes:
        folder: where its sockets are, and disks whose path wasn't given.
        monitor: a connection of the test's own; Strobe's is `monitor_socket`.
    """

    def __init__(self, place, disks, name="guest", has_agent=True, blocked=(), memory=256, cache=None):
        """`blocked`: commands that the agent refuses. `memory`: MiB."""
        self.place, self.disks, self.name = place, list(disks), name
        self.has_agent, self.blocked, self.memory = has_agent, blocked, memory
        self.cache = guest_cache(cache)
        self.folder = place.make(name)
        self.log = os.path.join(self.folder, "qemu.log")
        self.console = os.path.join(self.folder, "console.log")
        self.monitor_socket = os.path.join(self.folder, "qmp.sock")
        self.agent_socket = os.path.join(self.folder, "agent.sock")
        self.process = self.monitor = self.commands = None
        self.buses = {}
        # Not those that are plugged later.
        self.writer_disks = [disk.name for disk in self.disks]

    # Its life.

    def boot(self):
        """Starts QEMU and waits until the guest obeys. Again after `quit` and `kill`."""
        for disk in self.disks:
            disk.make(self.folder)
        for name in os.listdir(self.folder):
            if name.endswith(".sock"):
                os.unlink(os.path.join(self.folder, name))
        self.buses = {disk.name: f"port{index}" for index, disk in enumerate(self.disks)}
        self.process = self.place.start(self.words(), self.log)
        try:
            self.monitor = Monitor(os.path.join(self.folder, "test.sock"))
            self.connect()
        except Failure as failure:
            raise Failure(f"the guest didn't start: {failure}; {self.last_words()}") from None
        return self

    def words(self):
        """QEMU's command line."""
        sockets = {"agent0": "agent.sock", "commands0": "commands.sock"}
        line = f"console=ttyS0 quiet panic=-1 disks={len(self.disks)}"
        line += "" if self.has_agent else " agent=no"
        line += f" agent-block={','.join(self.blocked)}" if self.blocked else ""
        return [
            "qemu-system-x86_64", "-name", self.name, "-machine", "q35", "-accel", "tcg", "-cpu", "max",
            "-smp", "1", "-m", str(self.memory), "-display", "none", "-no-user-config", "-nodefaults",
            "-kernel", os.path.join(self.cache, "vmlinuz"),
            "-initrd", os.path.join(self.cache, "initrd.gz"), "-append", line,
            "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
            *(word for name in ("qmp", "test")
              for word in ("-qmp", f"unix:{self.folder}/{name}.sock,server=on,wait=off")),
            "-device", "virtio-serial-pci",
            *(word for name, file in sockets.items()
              for word in ("-chardev", f"socket,id={name},path={self.folder}/{file},server=on,wait=off")),
            "-device", "virtserialport,chardev=agent0,name=org.qemu.guest_agent.0",
            "-device", "virtserialport,chardev=commands0,name=org.strobe.commands",
            *(word for index in range(ROOT_PORTS)
              for word in ("-device", f"pcie-root-port,id=port{index},chassis={index + 1}")),
            *(word for disk in self.disks for word in disk.words(self.buses[disk.name]))]

    def connect(self):
        """Waits until the guest obeys."""
        if self.commands:
            self.commands.close()
        self.commands = Commands(os.path.join(self.folder, "commands.sock"), PATIENCE)

    def last_words(self):
        said = []
        for path in (self.log, self.console):
            with open(path, encoding="utf-8", errors="replace") as file:
                said.append(file.read().strip()[-400:] or "nothing")
        return f"QEMU {self.fate()}, and said: {said[0]}; the guest's console: {said[1]}"

    def fate(self):
        status = self.process.poll()
        return "is alive" if status is None else f"ended with status {status}"

    def reset(self):
        """The reset button; doesn't wait."""
        self.monitor.call("system_reset")

    def quit(self):
        """QEMU ends in order: bitmaps of qcow2 disks are kept. The guest isn't asked."""
        try:
            self.monitor.call("quit")
        except Failure:
            # It may close the connection before it answers.
            pass
        self.process.wait(PATIENCE)
        self.disconnect()

    def kill(self):
        """SIGKILL to QEMU."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.disconnect()

    def disconnect(self):
        for connection in (self.monitor, self.commands):
            if connection:
                connection.close()
        self.monitor = self.commands = None

    def remove(self):
        """Ends it and removes its disks."""
        if self.process:
            self.kill()
        for disk in self.disks:
            if disk.path.startswith(self.folder + "/"):
                os.remove(disk.path)

    # What is done in and to it.

    def command(self, line, check=True):
        """Runs a line of shell in the guest and returns what it printed."""
        return self.commands.run(line, check)

    def status(self):
        return self.monitor.call("query-status")["status"]

    def expect_alive(self):
        """Fails unless QEMU lives and the guest's processor runs."""
        if self.process.poll() is not None:
            raise Failure(self.last_words())
        if self.status() != "running":
            raise Failure(f"the guest isn't running but {self.status()}")

    def free_port(self):
        """The name of a pcie-root-port that nothing is plugged into."""
        return next(f"port{index}" for index in range(ROOT_PORTS)
                    if f"port{index}" not in self.buses.values())

    def plug(self, disk):
        """Hot-plugs a disk; the guest mounts it."""
        disk.make(self.folder)
        bus = self.free_port()
        self.monitor.call("blockdev-add", **disk.block_node())
        self.monitor.call("device_add", **disk.device(bus))
        self.disks.append(disk)
        self.buses[disk.name] = bus
        self.command(f"mount-disks {len(self.disks)}; grep ' /disks/{disk.name} ' /proc/mounts")

    def unplug(self, name):
        """Unmounts a disk and takes it away. Fails where somebody holds its node."""
        self.command(f"umount /disks/{name} && rmdir /disks/{name}")
        disk = self.disk(name)
        self.monitor.call("device_del", id=name)
        self.monitor.wait("DEVICE_DELETED", device=name)
        self.disks.remove(disk)
        del self.buses[name]
        self.delete_node(disk.top)

    def delete_node(self, node):
        """A node may be held for a moment more."""
        for _ in range(100):
            try:
                return self.monitor.call("blockdev-del", node_name=node)
            except Refused as refused:
                reason = refused
                time.sleep(0.05)
        raise reason

    def resize(self, name, megabytes):
        """Grows or shrinks a disk."""
        disk = self.disk(name)
        self.monitor.call("block_resize", node_name=disk.top, size=megabytes << 20)
        disk.megabytes = megabytes

    def agent(self):
        """A connection to the agent; to be closed before Strobe comes."""
        return Agent(self.agent_socket)
