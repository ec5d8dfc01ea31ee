"""Runs strobe under strace, counts its system calls, and makes chosen ones fail."""

import collections
import errno
import os
import re
import signal
import subprocess
import time

from rig import Failure, die_with_parent, run

PATIENCE = 90
KILL = "KILL"

# What each call may answer instead of doing its work; KILL: the process is killed in it.
FAULTS = {
    "openat": ("EIO", "EMFILE", "ENOMEM", "EINTR"),
    "read": ("EIO", "EINTR"),
    "pread64": ("EIO", "EINTR"),
    "write": ("EIO", "ENOSPC", "EINTR"),
    "pwrite64": ("EIO", "ENOSPC", "EINTR", KILL),
    "fsync": ("EIO", "ENOSPC", "EINTR", KILL),
    "fdatasync": ("EIO", "ENOSPC", "EINTR", KILL),
    "syncfs": ("EIO", "ENOSPC"),
    "sync_file_range": ("EIO", "ENOSPC", "ENOMEM"),
    "ftruncate": ("EIO", "ENOSPC", "EINTR", KILL),
    "fallocate": ("EIO", "ENOSPC", "EINTR", "EOPNOTSUPP"),
    "copy_file_range": ("EIO", "ENOSPC", "EXDEV"),
    "rename": ("EIO", "ENOSPC", KILL),
    "renameat2": ("EIO", "ENOSPC", "EINVAL", KILL),
    "link": ("EIO", "ENOSPC", KILL),
    "linkat": ("EIO", "ENOSPC", KILL),
    "unlink": ("EIO", "ENOSPC", KILL),
    "mkdir": ("EIO", "ENOSPC", KILL),
    "flock": ("ENOLCK", "EINTR", "ENOMEM"),
    "ioctl": ("EIO", "ENOMEM", "EINTR"),
    "statx": ("EIO", "ENOMEM"),
    "newfstatat": ("EIO", "ENOMEM"),
    "fstat": ("EIO",),
    "readlink": ("EIO", "ENOMEM"),
    "getdents64": ("EIO", "ENOMEM"),
    "lseek": ("EIO",),
    "fcntl": ("EIO",),
    "close": ("EIO", "EINTR"),
    "io_setup": ("EAGAIN", "ENOMEM"),
    "io_submit": ("EIO", "EAGAIN", "ENOMEM", "EINTR"),
    "io_getevents": ("EINTR",),
    "mmap": ("ENOMEM",),
    "mprotect": ("ENOMEM",),
    "madvise": ("ENOMEM",),
    "fadvise64": ("EIO",),
    "clone3": ("EAGAIN", "ENOMEM"),
    "clone": ("EAGAIN", "ENOMEM"),
    "vfork": ("EAGAIN", "ENOMEM"),
    "execve": ("EACCES", "ENOMEM"),
    "pipe2": ("EMFILE",),
    "socketpair": ("EMFILE",),
    "poll": ("EINTR", "ENOMEM"),
    "wait4": ("EINTR",),
    "mlockall": ("ENOMEM",),
    "getrandom": ("EINTR",),
    "fchown": ("EIO",),
    "fchmod": ("EIO",),
}
# Where memory can't be had the Swift runtime ends the process: that is as a kill then.
OF_MEMORY = ("mmap", "mprotect", "brk")


class Fault:
    """One system call that fails: the n-th of its name in every thread that comes so far."""

    def __init__(self, call, code, number):
        self.call, self.code, self.number = call, code, number

    def __str__(self):
        return f"{self.call}:{self.code}:{self.number}"

    @property
    def inject(self):
        answer = "signal=KILL" if self.code == KILL else f"error={self.code}"
        return f"inject={self.call}:{answer}:when={self.number}"

    @property
    def text(self):
        return "" if self.code == KILL else os.strerror(getattr(errno, self.code))


class Result:
    """How a command ended.

    Attributes:
        status: as subprocess has it, negative for a signal.
        trace: lines of strace.
    """

    def __init__(self, status, output, errors, trace):
        self.status, self.output, self.errors, self.trace = status, output, errors, trace

    @property
    def hits(self):
        return [line for line in self.trace if "(INJECTED)" in line or "killed by SIGKILL" in line]


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Tracer:
    """Starts commands with a tracer that has hold of them before main."""

    def __init__(self, rig, program, library):
        self.program, self.library = program, library
        self.folder = rig.path("trace")
        os.makedirs(self.folder)

    def run(self, words, *options):
        """Runs a command under strace with more options; fails when it hangs."""
        output, errors, trace = (os.path.join(self.folder, name) for name in ("out", "err", "calls"))
        if os.path.exists(trace):
            os.unlink(trace)
        environment = {**self.program.environment(), "LD_PRELOAD": self.library}
        with open(output, "wb") as out, open(errors, "wb") as err:
            process = subprocess.Popen(
                [self.program.path, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment, start_new_session=True, preexec_fn=die_with_parent)
        tracer = None
        try:
            self.wait_until(lambda: self.word(process.pid, "State") == "T", process)
            tracer = subprocess.Popen(
                ["strace", "-f", "-qq", "-s", "200", "-y", "-o", trace, *options,
                 "-p", str(process.pid)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True, preexec_fn=die_with_parent)
            self.wait_until(lambda: self.word(process.pid, "TracerPid") not in ("", "0"), tracer)
            os.kill(process.pid, signal.SIGCONT)
            status = process.wait(PATIENCE)
            tracer.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure(f"hangs; last calls: {read(trace).splitlines()[-6:]}") from None
        finally:
            for child in (tracer, process):
                if child and child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        return Result(status, read(output), read(errors), read(trace).splitlines())

    @staticmethod
    def word(pid, name):
        found = re.search(rf"^{name}:\s*(\S+)", read(f"/proc/{pid}/status"), re.MULTILINE)
        return found[1] if found else ""

    @staticmethod
    def wait_until(body, process):
        end = time.monotonic() + PATIENCE
        while not body():
            if time.monotonic() > end or process.poll() is not None:
                why = process.stderr.read() if process.stderr else b""
                raise Failure(f"{process.args[0]} did not come so far: {why[-300:]}")
            time.sleep(0.0005)

    def places(self, words):
        """Runs a command undisturbed.

        Returns:
            the result, and for each call of FAULTS and each object that it has to do with (numbers in names
            left out: the many devices in sysfs are one) the numbers of these calls, counted by name in
            their thread.
        """
        result = self.run(words)
        made = collections.Counter()
        places = {}
        for line in result.trace:
            found = re.match(r"(\d+)\s+(\w+)\((.*)", line)
            if found and found[2] in FAULTS:
                thread, call, rest = found.groups()
                made[call, thread] += 1
                objects = re.findall(r'"[^"]*"|<[^>]*>|\b[A-Z][A-Z_]{5,}\b', rest)
                objects = re.sub(r"[0-9a-f]*\d[0-9a-f]*", "N", " ".join(objects)[:300])
                places.setdefault((call, objects), set()).add(made[call, thread])
        return result, places


def all_faults(places, each=None):
    """Every fault at every place; at most `each` of the calls of a place: the first, the last, some between."""
    faults = {}
    for (call, _), numbers in sorted(places.items()):
        numbers = sorted(numbers)
        if each and len(numbers) > each:
            numbers = [numbers[index * (len(numbers) - 1) // max(each - 1, 1)]
                       for index in range(each)]
        for code in FAULTS[call]:
            for number in numbers:
                faults[call, code, number] = Fault(call, code, number)
    return list(faults.values())


def needs(*programs):
    for name in programs:
        if run(["sh", "-c", f"command -v {name}"], check=False).returncode != 0:
            raise Failure(f"there is no {name}; scripts/setup installs it")
