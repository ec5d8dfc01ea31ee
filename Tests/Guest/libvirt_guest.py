"""The test guest under a libvirtd of its own: a session daemon of the user nobody, without D-Bus and systemd.

It and its QEMU end with the test, however that ends.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from xml.sax.saxutils import quoteattr

from commands import Commands
from guest import PATIENCE, Writing
from place import Failure, guest_cache, run
from qmp import Monitor

USER = "nobody"
AS_USER = ["setpriv", "--reuid", USER, "--regid", "nogroup", "--clear-groups"]
TARGETS = "abcdefgh"
# QEMU isn't the daemon's child. What is read never comes: it ends with the test.
WATCH = """cat
for file in "$1"/run/libvirt/qemu/run/*.pid; do [ ! -e "$file" ] || kill -9 "$(cat "$file")"; done 2>/dev/null"""


class Session:
    """A session libvirtd. The folder's name has to be short: a socket's path has 107 bytes at most.

    Attributes:
        environment, uri: for clients that run as its user.
        socket_uri: for those that run as root.
    """

    def __init__(self, place):
        self.place = place
        os.chmod(place.folder, 0o711)
        self.folder = place.make("libvirt")
        self.environment = {
            **os.environ, "HOME": self.folder, "XDG_RUNTIME_DIR": os.path.join(self.folder, "run"),
            "XDG_CONFIG_HOME": os.path.join(self.folder, "config"),
            "XDG_CACHE_HOME": os.path.join(self.folder, "cache"), "LC_ALL": "C",
            # No client is to start a second daemon.
            "LIBVIRT_AUTOSTART": "0"}
        self.uri = "qemu:///session"
        self.socket_uri = f"qemu+unix:///session?socket={self.folder}/run/libvirt/libvirt-sock"
        for name in ("run", "config", "cache"):
            place.make("libvirt", name)
        self.own(self.folder)
        watcher = subprocess.Popen(["sh", "-c", WATCH, "watcher", self.folder], stdin=subprocess.PIPE,
                                   start_new_session=True)
        place.undo(watcher.communicate)
        self.process = None
        self.start()

    def start(self):
        """Starts the daemon, after `crash` again; waits until it answers."""
        # A change of the user forgets whose end is to be followed, so setpriv(1) notes it again.
        self.process = self.place.start(
            [*AS_USER, "--pdeathsig", "KILL", "libvirtd", "--timeout", "0",
             "--pid-file", os.path.join(self.folder, "libvirtd.pid")],
            self.place.path("libvirtd.log"), env=self.environment)
        self.wait()

    def crash(self):
        """SIGKILL to the daemon; the guests go on."""
        self.process.kill()
        self.process.wait()

    def own(self, folder):
        """Gives a folder, with all that is in it, to the daemon's user."""
        found = pwd.getpwnam(USER)
        for top, folders, files in os.walk(folder):
            for path in (top, *(os.path.join(top, name) for name in files)):
                os.chown(path, found.pw_uid, found.pw_gid)

    def words(self, *words):
        """A command that runs as the daemon's user."""
        return [*AS_USER, *words]

    def run(self, *words, check=True):
        return run(self.words(*words), check=check, env=self.environment)

    def virsh(self, *words, check=True):
        return self.run("virsh", "-q", "-c", self.uri, *words, check=check).stdout

    def define(self, path, description):
        """Defines a domain; its XML is kept at `path`."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(description)
        os.chmod(path, 0o644)
        self.virsh("define", path)

    def wait(self):
        end = time.monotonic() + PATIENCE
        while self.run("virsh", "-q", "-c", self.uri, "list", check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.place.path("libvirtd.log"), encoding="utf-8", errors="replace") as file:
                    raise Failure(f"libvirtd doesn't answer: {file.read()[-600:]}")
            time.sleep(0.05)


class LibvirtGuest(Writing):
    """A guest of a session's.

    Attributes:
        name: the domain's.
        monitor: a connection of the test's own, to a monitor that libvirt doesn't use.
    """

    def __init__(self, session, disks, name="guest", memory=256, cache=None):
        self.session, self.disks, self.name, self.memory = session, list(disks), name, memory
        self.writer_disks = [disk.name for disk in self.disks]
        self.cache = guest_cache(cache)
        self.folder = session.place.make(name)
        self.monitor_socket = os.path.join(self.folder, "qmp.sock")
        # A monitor has one client: this one's is Strobe.
        self.strobe_socket = os.path.join(self.folder, "strobe.sock")
        # The user can't read the cache where that is private.
        for file in ("vmlinuz", "initrd.gz"):
            shutil.copy(os.path.join(self.cache, file), self.folder)
        for disk in self.disks:
            disk.make(self.folder)
        session.own(self.folder)
        self.monitor = self.commands = None

    def boot(self, description=None):
        """Defines and starts the domain, and waits until the guest obeys. `description`: other XML."""
        self.session.define(os.path.join(self.folder, "domain.xml"), description or self.description())
        self.session.place.undo(self.kill)
        self.start()
        return self

    def start(self):
        """Starts the domain again, after `crash`."""
        self.session.virsh("start", self.name)
        self.monitor = Monitor(self.monitor_socket)
        self.connect()

    def connect(self):
        """Waits until the guest obeys."""
        if self.commands:
            self.commands.close()
        self.commands = Commands(os.path.join(self.folder, "commands.sock"), PATIENCE)

    def reset(self):
        """The reset button; doesn't wait."""
        self.session.virsh("reset", self.name)

    def crash(self):
        """SIGKILL to QEMU; waits until libvirt has noticed."""
        os.kill(self.process_id(), signal.SIGKILL)
        self.disconnect()
        self.wait_until_off()

    def quit(self):
        """QEMU ends in order: bitmaps are kept. The guest isn't asked."""
        self.disconnect()
        self.session.virsh("destroy", self.name, "--graceful")
        self.wait_until_off()

    def wait_until_off(self):
        end = time.monotonic() + PATIENCE
        while self.session.virsh("domstate", self.name).strip() != "shut off":
            if time.monotonic() > end:
                raise Failure("libvirt doesn't notice that QEMU is gone")
            time.sleep(0.05)

    def disconnect(self):
        for connection in (self.monitor, self.commands):
            if connection:
                connection.close()
        self.monitor = self.commands = None

    @property
    def targets(self):
        """The names that libvirt has for the disks, by their own."""
        return {disk.name: f"vd{letter}" for disk, letter in zip(self.disks, TARGETS)}

    def description(self):
        """The domain's XML."""
        disks = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='{disk.format}' discard='unmap'/>"
            f"<source file={quoteattr(disk.path)}/><target dev='vd{letter}' bus='virtio'/>"
            f"<serial>{disk.name}</serial></disk>"
            for disk, letter in zip(self.disks, TARGETS))
        line = f"console=ttyS0 quiet panic=-1 disks={len(self.disks)}"
        return f"""
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{self.name}</name><memory unit='MiB'>{self.memory}</memory><vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{self.folder}/vmlinuz</kernel><initrd>{self.folder}/initrd.gz</initrd><cmdline>{line}</cmdline>
  </os>
  <features><acpi/></features><cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{self.folder}/console.log'/></serial>
    <channel type='unix'><source mode='bind' path='{self.folder}/agent.sock'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='unix'><source mode='bind' path='{self.folder}/commands.sock'/>
      <target type='virtio' name='org.strobe.commands'/></channel>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-qmp'/><qemu:arg value='unix:{self.monitor_socket},server=on,wait=off'/>
    <qemu:arg value='-qmp'/><qemu:arg value='unix:{self.strobe_socket},server=on,wait=off'/>
  </qemu:commandline>
</domain>"""

    def command(self, line, check=True):
        """Runs a line of shell in the guest and returns what it printed."""
        return self.commands.run(line, check)

    def expect_alive(self):
        state = self.session.virsh("domstate", self.name).strip()
        if state != "running":
            raise Failure(f"the guest isn't running but {state}")

    def process_id(self):
        """QEMU's, in this program's PID namespace."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"qemu-system-x86_64") and self.folder.encode() in b"\0".join(words):
                return int(name)
        raise Failure(f"QEMU of {self.name} can't be found")

    def checkpoints(self):
        return self.session.virsh("checkpoint-list", self.name, "--name").split()

    def kill(self):
        """Ends the guest, and forgets it with its checkpoints. May be called again."""
        self.disconnect()
        self.session.virsh("destroy", self.name, check=False)
        for checkpoint in self.session.virsh(
                "checkpoint-list", self.name, "--name", check=False).split():
            self.session.virsh("checkpoint-delete", self.name, checkpoint, "--metadata", check=False)
        self.session.virsh("undefine", self.name, check=False)
