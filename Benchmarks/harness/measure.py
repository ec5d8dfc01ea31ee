"""Runs programs and says what they cost: wall seconds, CPU seconds (user + system), peak memory."""

import json
import math
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass


@dataclass
class Cost:
    wall: float
    cpu: float
    memory: int  # bytes, the largest resident set
    output: str = ""
    status: int = 0
    errors: str = ""


def run(words, environment=None, check=True):
    """Runs a program to its end and returns its cost."""
    start = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})})
    try:
        output, errors = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        # Told to end: so is the program, and what it holds is free before anybody cleans up.
        process.terminate()
        process.wait()
        raise
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if check and process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: exit {process.returncode}\n{errors.decode()}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output.decode(),
                process.returncode, errors.decode())


def median(costs):
    """The median of each figure over several runs; the largest memory."""
    return Cost(
        statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs),
        max(c.memory for c in costs))


def percentile(values, share):
    """The nearest-rank percentile: of fewer than 100 values, the 99th is the largest."""
    return sorted(values)[max(math.ceil(len(values) * share) - 1, 0)]


def has(program):
    return shutil.which(program) is not None


def fio(path, operation, megabytes, block="1m", depth=8, jobs=1, extra=()):
    """Seconds that fio takes to read or write `megabytes` in sequence with libaio and O_DIRECT."""
    share = megabytes // jobs
    words = ["fio", "--name=bench", f"--filename={path}", f"--rw={operation}", f"--bs={block}", "--direct=1",
             "--ioengine=libaio", f"--iodepth={depth}", f"--numjobs={jobs}", f"--size={share}m",
             f"--offset_increment={share}m", "--group_reporting", "--output-format=json", *extra]
    result = json.loads(run(words).output)
    side = result["jobs"][0]["read" if "read" in operation else "write"]
    return megabytes * (1 << 20) / (side["bw_bytes"] or 1)


def best_fio_read(path, megabytes):
    """The fastest of several ways to read a device in sequence: the limit of any scan."""
    ways = [(block, depth, jobs) for block in ("128k", "256k", "512k", "1m") for depth, jobs in ((4, 1), (8, 1), (4, 2))]
    times = {way: fio(path, "read", megabytes, *way) for way in ways}
    way = min(times, key=times.get)
    return times[way], way
