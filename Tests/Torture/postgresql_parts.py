"""What Tests/Torture/postgresql is built from: disks, servers, and a ledger of what was committed."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time


class Broken(Exception):
    """A point that isn't what it should be, or a command that failed; one line."""


def run(*command, ok=(0,), **options):
    """Runs a command to its end; returns the completed process."""
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                            check=False, **options)
    if result.returncode not in ok:
        output = (result.stderr.strip() or result.stdout.strip()).replace("\n", " | ")
        raise Broken(f"{' '.join(words)}: exit {result.returncode}: {output[-2000:]}")
    return result


def as_postgres(*command, **options):
    return run("runuser", "-u", "postgres", "--", *command, cwd="/", **options)


class Connection:
    """The simple query protocol over a Unix socket, as much as a ledger needs (trust, one result).

    PostgreSQL documentation, chapter "Frontend/Backend Protocol"."""

    def __init__(self, folder, database):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f"{folder}/.s.PGSQL.5432")
        self.buffer = b""
        body = struct.pack("!i", 196608) + f"user\0postgres\0database\0{database}\0\0".encode()
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self._answer()

    def query(self, text):
        body = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        return self._answer()

    def _take(self, count):
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _answer(self):
        rows, error = [], None
        while True:
            kind, size = struct.unpack("!ci", self._take(5))
            body = self._take(size - 4)
            if kind == b"E":
                error = body.replace(b"\0", b" ").decode()
            elif kind == b"D":
                rows.append(self._row(body))
            elif kind == b"Z":
                if error:
                    raise Broken(f"server: {error}")
                return rows

    @staticmethod
    def _row(body):
        count, position, row = struct.unpack("!h", body[:2])[0], 2, []
        for _ in range(count):
            size = struct.unpack("!i", body[position:position + 4])[0]
            position += 4
            row.append(None if size < 0 else body[position:position + size].decode())
            position += max(size, 0)
        return row


class Ledger(threading.Thread):
    """Commits 1, 2, 3, … and knows when (CLOCK_MONOTONIC) each was sent and acknowledged."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.connection = Connection(folder, "postgres")
        self.connection.query("CREATE TABLE ledger (n bigint PRIMARY KEY, filler text)")
        self.sent, self.acknowledged = [], []
        self.stopping, self.problem = False, None

    def run(self):
        try:
            while not self.stopping:
                number = len(self.sent) + 1
                self.sent.append(time.monotonic())
                self.connection.query(f"INSERT INTO ledger VALUES ({number}, repeat('x', 100))")
                self.acknowledged.append(time.monotonic())
        except (OSError, Broken) as error:
            self.problem = error

    def acknowledged_by(self, moment):
        return sum(1 for when in list(self.acknowledged) if when <= moment)

    def sent_by(self, moment):
        return sum(1 for when in list(self.sent) if when <= moment)


class Disk:
    """A sparse file on a loop device, mounted; undone by close()."""

    def __init__(self, stack, image, mount_point):
        self.image, self.mount_point = image, mount_point
        self.device = run("losetup", "--find", "--show", image).stdout.strip()
        stack.callback(run, "losetup", "-d", self.device, ok=(0, 1))

    def mount(self, stack, *options):
        os.makedirs(self.mount_point, exist_ok=True)
        run("mount", *options, self.device, self.mount_point)
        stack.callback(self.unmount)

    def unmount(self):
        # Frozen by a rig or a strobe that died in between: nothing else would ever thaw it.
        run("fsfreeze", "-u", self.mount_point, ok=(0, 1, 32))
        for _ in range(100):
            if run("umount", self.mount_point, ok=(0, 1, 16, 32)).returncode == 0:
                return
            time.sleep(0.1)


class Server:
    """A PostgreSQL server of the rig, on a socket of its own only."""

    def __init__(self, programs, data, sockets):
        self.programs, self.data, self.sockets = programs, data, sockets
        os.makedirs(sockets, exist_ok=True)
        shutil.chown(sockets, "postgres", "postgres")

    def start(self, stack):
        stack.callback(self.stop)
        try:
            as_postgres(f"{self.programs}/pg_ctl", "-D", self.data, "-w", "-t", "120",
                        "-l", f"{self.sockets}/log", "-o", f"-k {self.sockets}", "start")
        except Broken as error:
            log = pathlib.Path(f"{self.sockets}/log")
            text = log.read_text(errors="replace") if log.exists() else ""
            raise Broken(f"{error} | {text[-1500:]}".replace("\n", " | ")) from error

    def stop(self):
        """Ends the process whose number is in postmaster.pid, and waits for it."""
        path = pathlib.Path(self.data, "postmaster.pid")
        if not path.exists():
            return
        number = int(path.read_text().split("\n")[0])
        folder = f"/proc/{number}/cwd"
        if not os.path.exists(folder) or os.path.realpath(folder) != os.path.realpath(self.data):
            return
        for when, what in ((0, signal.SIGINT), (20, signal.SIGQUIT), (30, signal.SIGKILL)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, what)
            until = time.monotonic() + (20 if when == 0 else 10)
            while time.monotonic() < until:
                if not os.path.exists(f"/proc/{number}"):
                    return
                time.sleep(0.05)

    def log(self):
        return pathlib.Path(f"{self.sockets}/log").read_text(errors="replace")
