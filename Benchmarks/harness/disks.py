"""Disks of one row on real files: loop devices with direct I/O, mounts, trackers; all of it taken away again.

Each undoing is noted before the deed, so that it is undone wherever a Ctrl-C or a failure comes in between.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from data import call
from freezing import thaw
from measure import run

MAKERS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"]}


def enter_mount_namespace():
    """Mounts made from now on are seen by this process and its children only, and end with the last of them."""
    new_namespace = 0x00020000  # CLONE_NEWNS, unshare(2)
    if ctypes.CDLL(None, use_errno=True).unshare(new_namespace) != 0:
        sys.exit(f"scripts/bench: unshare: {os.strerror(ctypes.get_errno())}")
    call("mount", "--make-rslave", "/")


class Disks:
    def __init__(self, bench):
        self.strobe = bench.strobe_program
        self.top = bench.options.folder
        self.mounts = []

    def __enter__(self):
        self.undoing = contextlib.ExitStack()
        self.folder = tempfile.mkdtemp(prefix="strobe-bench-", dir=self.top)
        self.undo(self.remove_folder)
        return self

    def __exit__(self, *_):
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
        try:
            self.undoing.close()
        finally:
            for number, action in zip(numbers, before):
                signal.signal(number, action)

    def undo(self, action, *values):
        """Has `action` done at the end; one that fails is said and doesn't keep the others from it."""
        def carefully():
            try:
                action(*values)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"scripts/bench: cleaning up: {error}", file=sys.stderr)
        self.undoing.callback(carefully)

    def path(self, name):
        return os.path.join(self.folder, name)

    def sparse(self, path, megabytes):
        with open(path, "wb") as file:
            file.truncate(megabytes << 20)
        return path

    def attach(self, path, direct=True):
        """A loop device on a file, past the page cache unless told otherwise."""
        self.undo(detach, path)
        mode = "--direct-io=on" if direct else "--direct-io=off"
        done = subprocess.run(["losetup", "--find", "--show", mode, path], capture_output=True, text=True)
        device = done.stdout.strip()
        if direct and device:
            with open(f"/sys/block/{os.path.basename(device)}/loop/dio", encoding="ascii") as file:
                direct = file.read().strip() == "1"
        if done.returncode != 0 or not direct and mode.endswith("on"):
            sys.exit(f"no loop device with direct I/O on {path}: {done.stderr.strip()}; "
                     "choose a --folder on a real disk's file system")
        return device

    def mount(self, device, kind, name):
        call(*MAKERS[kind], device)
        place = self.path(name)
        os.mkdir(place)
        self.undo(unmount, place)
        call("mount", device, place)
        self.mounts.append(place)
        return place

    def check_own(self, mount):
        """Ends the program unless this is a mount that was made here, of a loop device."""
        if mount not in self.mounts or not os.path.ismount(mount) or os.major(os.stat(mount).st_dev) != 7:
            sys.exit(f"{mount} is not a mount of this benchmark: it is not frozen")

    def thaw(self):
        for mount in self.mounts:
            if os.path.ismount(mount):
                thaw(mount)

    def track(self, devices):
        self.undo(self.untrack, devices)
        run([self.strobe, "track", "start", *devices])

    def untrack(self, devices):
        subprocess.run([self.strobe, "track", "stop", *devices], capture_output=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.environ["STROBE_BPF_ROOT"])  # when it was the last

    def remove_folder(self):
        if any(os.path.ismount(mount) for mount in self.mounts):
            raise OSError(f"{self.folder} stays, something is still mounted there")
        shutil.rmtree(self.folder, ignore_errors=True)


def unmount(place):
    if not os.path.ismount(place):
        return
    thaw(place)
    for _ in range(50):
        done = subprocess.run(["umount", place], capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise OSError(done.stderr.strip())


def detach(path):
    """Found by its file: the number of a device that is gone may be somebody else's by now."""
    listed = subprocess.run(["losetup", "--associated", path, "--noheadings", "--output", "NAME"],
                            capture_output=True, text=True)
    for device in listed.stdout.split():
        call("losetup", "--detach", device)
