"""Makes the disks that are measured, from a fixed seed, and takes everything away again."""

import atexit
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile


def call(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Workspace:
    """A folder in memory and one on disk, and the loop devices on their files."""

    def __init__(self):
        self.loops, self.mounts = [], []
        self.memory = tempfile.mkdtemp(prefix="strobe-bench-", dir="/dev/shm")
        self.disk = tempfile.mkdtemp(prefix="strobe-bench-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        atexit.register(self.remove)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: sys.exit(128 + number))

    def remove(self):
        for mount in reversed(self.mounts):
            subprocess.run(["umount", mount], stderr=subprocess.DEVNULL)
        for loop in self.loops:
            subprocess.run(["losetup", "-d", loop], stderr=subprocess.DEVNULL)
        for folder in (self.memory, self.disk):
            shutil.rmtree(folder, ignore_errors=True)

    def loop(self, path):
        device = subprocess.run(["losetup", "--find", "--show", path], check=True, capture_output=True, text=True)
        self.loops.append(device.stdout.strip())
        return self.loops[-1]

    def detach(self, device):
        self.loops.remove(device)
        call("losetup", "-d", device)


def pages(path, count, seed):
    """Database-like pages of 8 KiB: a header, a few short rows, sorted numbers, free space."""
    source = random.Random(seed)
    words = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz", k=source.randint(3, 12))) for _ in range(2000)]
    with open(path, "wb") as file:
        for number in range(count):
            page = bytearray(number.to_bytes(8, "little") + source.randbytes(16))
            while len(page) < 6200:
                page += source.randbytes(6) + b" ".join(source.choices(words, k=6)) + b"\0"
            file.write(bytes(page[:8192]).ljust(8192, b"\0"))


def make_disk(work, megabytes):
    """An ext4 disk in memory, two thirds full: files of /usr and database-like pages."""
    need, free = megabytes * 5, shutil.disk_usage("/dev/shm").free >> 20
    if free < need:
        sys.exit(f"scripts/bench: {need} MiB of /dev/shm are needed, {free} are free; choose a smaller --size")
    image = os.path.join(work.memory, "disk.raw")
    call("truncate", "-s", f"{megabytes}M", image)
    device = work.loop(image)
    call("mkfs.ext4", "-q", "-F", "-U", "01234567-89ab-cdef-0123-456789abcdef", device)
    mount = os.path.join(work.memory, "mount")
    os.mkdir(mount)
    call("mount", device, mount)
    work.mounts.append(mount)
    pages(os.path.join(mount, "table"), megabytes * 16, seed=1)  # an eighth of the disk
    budget = megabytes * (1 << 20) * 13 // 24
    for name in files("/usr"):
        size = os.path.getsize(name)
        if budget < size:
            continue
        target = os.path.join(mount, name[1:])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(name, target)
        budget -= size
        if budget < 1 << 20:
            break
    call("umount", mount)
    work.mounts.remove(mount)
    return image, device


def files(top):
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def change(device, megabytes, share, seed):
    """Overwrites `share` of the disk's 64 KiB chunks at random places with 4 KiB of new bytes each."""
    source = random.Random(seed)
    chunks = megabytes * 16
    with open(device, "r+b", buffering=0) as disk:
        for chunk in source.sample(range(chunks), int(chunks * share)):
            os.pwrite(disk.fileno(), source.randbytes(4096), chunk * 65536)
        os.fsync(disk.fileno())
