"""Programs that write to file systems while Strobe works: fio(1), and passes of Strobe back to back."""

import ctypes
import json
import signal
import subprocess
import threading
import time

from data import call
from measure import run

# A fifth of each block is random bytes, the rest zeros: about what LZ4 makes of real data.
CONTENT = ["--buffer_compress_percentage=80", "--refill_buffers=0", "--randseed=1"]
DIRECT = ["--direct=1", "--ioengine=libaio", "--thread", "--output-format=json"]


def fill(path, megabytes):
    """Writes the file whole, so that the load allocates nothing."""
    call("fio", "--name=fill", f"--filename={path}", "--rw=write", "--bs=1m", "--iodepth=8",
         f"--size={megabytes}m", "--end_fsync=1", *DIRECT, *CONTENT)


def end_with_parent():
    """In a new process: is killed when the one that started it is gone, prctl(2)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class SteadyWriters:
    """fio writes 4 KiB blocks to random places of the files, `rate` a second together, until it is stopped."""

    def __init__(self, disks, files, megabytes, rate):
        self.disks, self.report = disks, disks.path("fio.json")
        words = ["fio", "--name=global", "--rw=randwrite", "--bs=4k", "--iodepth=16", f"--size={megabytes}m",
                 f"--rate_iops={rate // len(files)}", "--time_based", "--runtime=7200",
                 f"--output={self.report}", *DIRECT, *CONTENT]
        for number, file in enumerate(files):
            words += [f"--name=disk{number}", f"--filename={file}"]
        self.process = None
        disks.undo(self.stop)
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True,
                                        preexec_fn=end_with_parent)
        time.sleep(2)
        self.check()

    def check(self):
        if self.process.poll() is not None:
            raise SystemExit(f"fio ended before its time, exit {self.process.returncode}")

    def stop(self):
        """Ends fio and returns how many writes a second it came to."""
        if self.process is None or self.process.returncode is not None:
            return None
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.disks.thaw()  # a writer to a frozen file system can't end
            self.process.kill()
            self.process.wait()
        try:
            with open(self.report, encoding="utf-8") as file:
                text = file.read()
            return sum(job["write"]["iops"] for job in json.loads(text[text.index("{"):])["jobs"])
        except (OSError, ValueError):
            return None


def unthrottled(path, megabytes, operation, block, depth, seconds):
    """One fio job at full speed: its `write` figures."""
    cost = run(["fio", "--name=writer", f"--filename={path}", f"--rw={operation}", f"--bs={block}",
                f"--iodepth={depth}", "--numjobs=1", f"--size={megabytes}m", "--time_based",
                f"--runtime={seconds}", *DIRECT, *CONTENT])
    return json.loads(cost.output)["jobs"][0]["write"]


class Passes:
    """`strobe snapshot` again and again, from its start to its end."""

    def __init__(self, words):
        self.words, self.done, self.failed = words, [], []
        self.ending, self.process = threading.Event(), None
        self.thread = threading.Thread(target=self.go)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.ending.set()
        if kind is not None and self.process is not None:
            self.process.terminate()
        self.thread.join()

    def go(self):
        while not self.ending.is_set():
            self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            output, errors = self.process.communicate()
            if self.process.returncode in (0, 3):
                self.done.append(json.loads(output))
            else:
                self.failed.append(f"exit {self.process.returncode}: {errors.strip()}")
            if len(self.failed) > 20:
                return

