"""What the rigs stand on: commands, loop devices, mounts, and the certainty that nothing stays behind."""

import atexit
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FITHAW = 0xC0045878
FIFREEZE = 0xC0045877
SHARED_MEMORY = "/dev/shm"
IN_NAMESPACE = "STROBE_TORTURE_NAMESPACE"


class Failure(Exception):
    """What was tested does not hold."""


def enter_namespace():
    """Starts the program again in a mount namespace of its own.

    The freeze records (/run/strobe) and the BPF file system are private there: who runs `strobe thaw`
    on this machine meanwhile doesn't meddle, and isn't meddled with.
    """
    if os.geteuid() != 0:
        sys.exit("this needs root: loop devices, mounts, freezes")
    if os.environ.get(IN_NAMESPACE) != str(os.getpid()):
        # unshare(1) without --fork executes in this very process.
        os.environ[IN_NAMESPACE] = str(os.getpid())
        words = ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp("unshare", words)
    os.makedirs("/run/strobe", exist_ok=True)
    run(["mount", "-t", "tmpfs", "strobe-torture", "/run/strobe"])


def run(command, check=True, timeout=120, **more):
    """Runs a command; its output is text."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", timeout=timeout, **more)
    if check and result.returncode != 0:
        raise Failure(f"{' '.join(command)}: status {result.returncode}: "
                      f"{(result.stderr or result.stdout).strip()[-600:]}")
    return result


def die_with_parent():
    """For a child: SIGKILL when its parent ends, however that happens (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


def freeze_ioctl(path, request):
    """FIFREEZE or FITHAW of a mount point; returns errno or 0."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        return error.errno
    try:
        fcntl.ioctl(descriptor, request, 0)
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(descriptor)


class Rig:
    """A folder in shared memory, and everything that was made for a test.

    Attributes:
        folder: path of the folder.
        host: mount point of a file system with reflinks for the files behind the disks.
    """

    def __init__(self, name, host_size=6 << 30, host_kind="xfs", host_folder=None):
        """Makes the folder and mounts the file system for the files behind the disks.

        Args:
            host_kind: xfs or btrfs, what has reflinks.
            host_folder: where the host's own image lies, in a new folder; in shared memory unless given.
        """
        self.folder = tempfile.mkdtemp(prefix=f"strobe-{name}-", dir=SHARED_MEMORY)
        self.loops = {}
        self.mounts = []
        self.processes = []
        self.at_end = []
        self.is_over = False
        atexit.register(self.clean)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        self.outside = host_folder and tempfile.mkdtemp(prefix=f"strobe-{name}-", dir=host_folder)
        image = os.path.join(self.outside or self.folder, "host.img")
        self.sparse(image, host_size)
        run([f"mkfs.{host_kind}", "-q", *(["-m", "reflink=1"] if host_kind == "xfs" else []), image])
        # What is removed on a disk is given back to it at once.
        options = "discard" if self.outside else ""
        self.host = self.mount(self.attach(image), "host", options)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    @staticmethod
    def sparse(path, size):
        with open(path, "wb") as file:
            file.truncate(size)

    def attach(self, path, *options):
        device = run(["losetup", "-f", "--show", *options, path]).stdout.strip()
        self.loops[device] = path
        return device

    def detach(self, device):
        """Detaches a loop device that is still ours: its number may be somebody else's by now."""
        path = self.loops.pop(device, None)
        name = f"/sys/block/{os.path.basename(device)}/loop/backing_file"
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                shown = file.read().strip()
        except OSError:
            return
        # How much of the path is shown depends on what is still mounted.
        if path and os.path.basename(path) in shown:
            run(["losetup", "-d", device], check=False)

    def mount(self, device, name, options="", kind=None):
        place = self.path(name)
        os.makedirs(place, exist_ok=True)
        run(["mount", *(["-t", kind] if kind else []), *(["-o", options] if options else []),
             device, place])
        self.mounts.append(place)
        return place

    def unmount(self, place):
        for attempt in range(40):
            result = run(["umount", place], check=False)
            if result.returncode == 0 or "not mounted" in result.stderr:
                break
            time.sleep(0.1)
        else:
            run(["umount", "-l", place], check=False)
        if place in self.mounts:
            self.mounts.remove(place)

    def start(self, body):
        """Runs `body` in a child process; the test fails when it ends by itself with an error."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                die_with_parent()
                body()
                status = 0
            except BaseException as error:  # The parent has to hear of it, whatever it is.
                with open(self.path("writer-errors"), "a", encoding="utf-8") as file:
                    file.write(f"{type(error).__name__}: {error}\n")
            finally:
                os._exit(status)
        self.processes.append(child)
        return child

    def check_writers(self):
        """Fails when a writer ended or met an error that it can't explain."""
        for child in list(self.processes):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                self.processes.remove(child)
                if status != 0:
                    raise Failure(
                        f"a writer ended with wait status {status}: {self.writer_errors()}")

    def writer_errors(self):
        try:
            with open(self.path("writer-errors"), encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            return ""

    def end_children(self):
        for child in self.processes:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for child in self.processes:
            try:
                os.waitpid(child, 0)
            except ChildProcessError:
                continue
        self.processes = []

    def clean(self):
        """Thaws, ends children, unmounts, detaches, removes. May be called again."""
        if self.is_over or not os.path.isdir(self.folder):
            return
        self.is_over = True
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for body in reversed(self.at_end):
            body()
        for place in self.mounts:
            if place != getattr(self, "host", None):
                freeze_ioctl(place, FITHAW)
        self.end_children()
        # The disks lie on the host file system: it goes last but its own loop device.
        for place in reversed(self.mounts[1:]):
            self.unmount(place)
        for device in reversed(list(self.loops)[1:]):
            self.detach(device)
        for place in list(self.mounts):
            self.unmount(place)
        for device in list(self.loops):
            self.detach(device)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.outside:
            shutil.rmtree(self.outside, ignore_errors=True)
