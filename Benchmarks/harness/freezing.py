"""The bare freeze: what FIFREEZE and FITHAW of file systems take without anything in between.

Invariants:
- Only mounts that `Disks` made are frozen.
- Whatever ends this process while they are frozen, its watchdog, a child that holds their descriptors,
  sees the end of a pipe and thaws them. It thaws them as well when they are frozen for too long.
"""

import ctypes
import fcntl
import os
import select
import signal
import tempfile
import time

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
FICLONE = 0x40049409
LONGEST_FREEZE_SECONDS = 30
libc = ctypes.CDLL(None, use_errno=True)


def thaw(mount):
    """Thaws a mount if it is frozen."""
    descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError:
        pass  # it wasn't frozen
    finally:
        os.close(descriptor)


class BareFreezer:
    """Freezes and thaws the given mounts of `disks`, in this order and in reverse."""

    def __init__(self, disks, mounts):
        for mount in mounts:
            disks.check_own(mount)
        self.mounts = mounts

    def __enter__(self):
        self.descriptors = [os.open(mount, os.O_RDONLY | os.O_DIRECTORY) for mount in self.mounts]
        reading, self.pipe = os.pipe()
        self.watchdog = os.fork()
        if self.watchdog == 0:
            try:
                os.close(self.pipe)
                watch(reading, self.descriptors)
            finally:
                os._exit(0)
        os.close(reading)
        return self

    def __exit__(self, *_):
        os.close(self.pipe)
        os.waitpid(self.watchdog, 0)
        for descriptor in self.descriptors:
            os.close(descriptor)

    def synchronize(self):
        """As Strobe does before it freezes: again until it is quick or no faster, five times at most."""
        for descriptor in self.descriptors:
            last = float("inf")
            for _ in range(5):
                start = time.monotonic()
                if libc.syncfs(descriptor) != 0:
                    raise OSError(ctypes.get_errno(), "syncfs")
                seconds = time.monotonic() - start
                if seconds < 0.02 or seconds >= last:
                    break
                last = seconds

    def measure(self, between=lambda: None):
        """Milliseconds from before the first FIFREEZE until after the last FITHAW, `between` included."""
        self.synchronize()
        os.write(self.pipe, b"F")
        start = time.monotonic()
        try:
            for descriptor in self.descriptors:
                fcntl.ioctl(descriptor, FIFREEZE, 0)
            between()
        finally:
            refused = thaw_all(self.descriptors)
        milliseconds = (time.monotonic() - start) * 1000
        os.write(self.pipe, b"T")
        if refused:
            raise SystemExit(f"a bare freeze did not hold: {refused[0]}")
        return milliseconds


def clone(paths):
    """Shares the blocks of each file with a new one beside it, which is gone again at once: FICLONE alone."""
    for path in paths:
        with open(path, "rb") as source, tempfile.TemporaryFile(dir=os.path.dirname(path)) as copy:
            fcntl.ioctl(copy.fileno(), FICLONE, source.fileno())


def thaw_all(descriptors):
    refused = []
    for descriptor in reversed(descriptors):
        try:
            fcntl.ioctl(descriptor, FITHAW, 0)
        except OSError as error:
            refused.append(error)
    return refused


def watch(pipe, descriptors):
    """The watchdog: F and T on the pipe say that a freeze begins and has ended."""
    os.setsid()  # out of reach of a Ctrl-C
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    frozen = False
    while True:
        ready, _, _ = select.select([pipe], [], [], LONGEST_FREEZE_SECONDS if frozen else None)
        told = os.read(pipe, 1) if ready else b"T"
        if frozen and (not ready or not told):
            thaw_all(descriptors)
        if not told:
            return
        frozen = told == b"F"
