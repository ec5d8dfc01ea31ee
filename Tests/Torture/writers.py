"""Processes that write to the file systems under test while points are taken."""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import time
import zlib

FITRIM = 0xC0185879
KEEP_SIZE, PUNCH_HOLE = 1, 2
FILE_LIMIT = 16
BIG_FILE = 20 << 20
ORDER_SLOTS = 256
RECORD = 4096


class Control:
    """What the rig tells the writers, and hears of them: shared memory."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 4096)

    CALM, BURST, PAUSE = 0, 1, 2

    @property
    def mode(self):
        return self.memory[0]

    @mode.setter
    def mode(self, value):
        self.memory[0] = value

    def probe(self, index):
        """Start and end, nanoseconds of CLOCK_MONOTONIC, of the last write that was done."""
        return struct.unpack_from("<QQ", self.memory, 64 + 16 * index)

    def set_probe(self, index, start, end):
        struct.pack_into("<QQ", self.memory, 64 + 16 * index, start, end)


class Churn:
    """A mix of everything that changes a file system, in a folder of its own."""

    def __init__(self, mount, name, seed, control, trim_lock):
        self.mount = mount
        self.folder = os.path.join(mount, name)
        self.random = random.Random(seed)
        self.control = control
        self.trim_lock = trim_lock
        self.count = 0
        self.files = []
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.buffer = mmap.mmap(-1, 64 << 10)

    def run(self):
        os.makedirs(self.folder, exist_ok=True)
        self.big = os.path.join(self.folder, "big")
        if not os.path.exists(self.big):
            with open(self.big, "wb") as file:
                for _ in range(BIG_FILE >> 20):
                    file.write(self.random.randbytes(1 << 20))
        operations = [
            (self.overwrite, 30), (self.overwrite_synced, 12), (self.create, 10), (self.delete, 6),
            (self.truncate, 5), (self.append, 12), (self.rename, 5), (self.mapped, 8),
            (self.allocate, 4), (self.punch, 4), (self.direct, 8), (self.trim, 1),
        ]
        bodies = [body for body, _ in operations]
        weights = [weight for _, weight in operations]
        while True:
            while self.control.mode == Control.PAUSE:
                time.sleep(0.002)
            try:
                self.random.choices(bodies, weights)[0]()
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self.make_room()
                elif error.errno != errno.EOPNOTSUPP:
                    raise
            if self.control.mode == Control.CALM:
                time.sleep(self.random.random() * 0.02)

    def make_room(self):
        while len(self.files) > 2:
            os.unlink(self.files.pop())

    def content(self, length):
        if self.random.random() < 0.15:
            return bytes(length)
        if self.random.random() < 0.3:
            return bytes([self.random.randrange(256)]) * length
        return self.random.randbytes(length)

    def length(self):
        return self.random.choice((1, 100, 511, 512, 4096, 4097, 16384, 65536, 100_000))

    def any_file(self):
        if not self.files or self.random.random() < 0.3:
            return self.big
        return self.random.choice(self.files)

    def open(self, path, flags=os.O_RDWR):
        return os.open(path, flags | os.O_CREAT, 0o600)

    def change(self, path, body, flags=os.O_RDWR):
        descriptor = self.open(path, flags)
        try:
            body(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def overwrite(self, sync=False):
        def body(descriptor, size):
            for _ in range(self.random.randrange(1, 8)):
                length = min(self.length(), max(size, 1))
                offset = self.random.randrange(max(size - length, 0) + 1)
                os.pwrite(descriptor, self.content(length), offset)
            if sync:
                self.random.choice((os.fsync, os.fdatasync))(descriptor)
        self.change(self.any_file(), body)

    def overwrite_synced(self):
        self.overwrite(sync=True)

    def create(self):
        if len(self.files) >= FILE_LIMIT:
            self.delete()
        self.count += 1
        path = os.path.join(self.folder, f"f{self.count}")
        self.change(path, lambda descriptor, _: os.write(descriptor, self.content(self.length())))
        self.files.append(path)

    def delete(self):
        if self.files:
            os.unlink(self.files.pop(self.random.randrange(len(self.files))))

    def truncate(self):
        if self.files:
            os.truncate(self.random.choice(self.files), self.random.randrange(300_000))

    def append(self):
        if self.files:
            path = self.random.choice(self.files)
            if os.stat(path).st_size < 1 << 20:
                self.change(
                    path, lambda descriptor, _: os.write(descriptor, self.content(self.length())),
                    os.O_WRONLY | os.O_APPEND)

    def rename(self):
        if self.files:
            old = self.files.pop(self.random.randrange(len(self.files)))
            if self.files and self.random.random() < 0.3:
                os.rename(old, self.random.choice(self.files))
                return
            self.count += 1
            new = os.path.join(self.folder, f"r{self.count}")
            os.rename(old, new)
            self.files.append(new)

    def mapped(self):
        def body(descriptor, size):
            if size < 4096:
                return
            with mmap.mmap(descriptor, size) as memory:
                for _ in range(self.random.randrange(1, 6)):
                    length = min(self.length(), size)
                    offset = self.random.randrange(size - length + 1)
                    memory[offset:offset + length] = self.content(length)
                if self.random.random() < 0.4:
                    memory.flush()
        # Never a file with holes: a full file system would end the writer with SIGBUS.
        self.change(self.big, body)

    def fallocate(self, descriptor, mode, offset, length):
        result = self.libc.fallocate(
            descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "fallocate")

    def allocate(self):
        if self.files:
            self.change(self.random.choice(self.files), lambda descriptor, _: self.fallocate(
                descriptor, self.random.choice((0, KEEP_SIZE)), self.random.randrange(200_000),
                self.random.randrange(1, 200_000)))

    def punch(self):
        if self.files:
            self.change(self.random.choice(self.files), lambda descriptor, size: self.fallocate(
                descriptor, KEEP_SIZE | PUNCH_HOLE, self.random.randrange(size + 1),
                self.random.randrange(1, 100_000)))

    def direct(self):
        def body(descriptor, size):
            length = self.random.choice((4096, 8192, 65536))
            self.buffer[:length] = self.content(length)
            offset = self.random.randrange((BIG_FILE - length) // 4096) * 4096
            os.pwritev(descriptor, [memoryview(self.buffer)[:length]], offset)
        self.change(self.big, body, os.O_RDWR | os.O_DIRECT)

    def trim(self):
        # A discard gets through a freeze, and is a change of the disk: the rig excludes it in the window.
        with open(self.trim_lock, "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            descriptor = os.open(self.mount, os.O_RDONLY)
            try:
                start = self.random.randrange(200 << 20)
                fcntl.ioctl(descriptor, FITRIM, struct.pack("<QQQ", start, 64 << 20, 0))
            finally:
                os.close(descriptor)


def trim_always(mount, seed):
    """Discards free space again and again, which a freeze doesn't stop."""
    generator = random.Random(seed)
    descriptor = os.open(mount, os.O_RDONLY)
    while True:
        start, length = generator.randrange(200 << 20), generator.randrange(1 << 20, 16 << 20)
        fcntl.ioctl(descriptor, FITRIM, struct.pack("<QQQ", start, length, 0))
        time.sleep(generator.random() * 0.2)


def record(number):
    body = struct.pack("<Q", number) * ((RECORD - 8) // 8)
    return body + struct.pack("<Q", zlib.crc32(body))


def write_in_order(mounts, control):
    """Record n on the first file system and fsync, then on the second and fsync, then n + 1."""
    files = [os.open(os.path.join(mount, "order"), os.O_RDWR | os.O_CREAT, 0o600) for mount in mounts]
    number = 0
    while True:
        while control.mode == Control.PAUSE:
            time.sleep(0.002)
        number += 1
        for file in files:
            os.pwrite(file, record(number), number % ORDER_SLOTS * RECORD)
            os.fsync(file)
        if control.mode == Control.CALM:
            time.sleep(0.005)


def last_record(mount):
    """The highest complete record on a file system, or 0."""
    last = 0
    with open(os.path.join(mount, "order"), "rb") as file:
        while piece := file.read(RECORD):
            number = struct.unpack_from("<Q", piece)[0]
            if number > last and piece == record(number):
                last = number
    return last


def probe(mount, control, index):
    """Writes and syncs again and again, and notes when it last succeeded."""
    file = os.open(os.path.join(mount, "probe"), os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        start = time.monotonic_ns()
        os.pwrite(file, struct.pack("<Q", start), 0)
        os.fdatasync(file)
        control.set_probe(index, start, time.monotonic_ns())
        time.sleep(0.002)
