#!/usr/bin/env python3
"""Takes points of an ext4 while fio(1) writes 4 KiB blocks to random places of it at a steady rate, and
prints the window of each. Points that fail are counted.

Exit status: 0 every point was taken, 1 one wasn't, 2 wrong usage."""

import argparse
import json
import subprocess
import sys
import time

from rig import Rig, enter_namespace, run
from window import Strobe


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--points", type=int, default=3, metavar="N")
    parser.add_argument("--rate", type=int, default=10_000, metavar="N", help="writes a second")
    parser.add_argument("--direct", action="store_true", help="past the page cache")
    parser.add_argument("--size", type=int, default=2048, metavar="N", help="MiB that are written to")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of fio")
    return parser.parse_args()


def start_fio(mount, values):
    engine = ["--ioengine=libaio", "--iodepth=8", "--direct=1"] if values.direct else [
        "--ioengine=psync"]
    return subprocess.Popen(
        ["fio", "--name=load", f"--filename={mount}/file", f"--size={values.size}m", "--rw=randwrite",
         "--bs=4k", f"--rate_iops={values.rate}", "--time_based", "--runtime=3600",
         f"--randseed={values.seed}", "--thread", *engine],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    values = arguments()
    enter_namespace()
    print(f"# seed {values.seed}; {values.strobe}", flush=True)
    rig = Rig("load")
    file = f"{rig.host}/disk.raw"
    rig.sparse(file, (values.size + 1024) << 20)
    device = rig.attach(file)
    run(["mkfs.ext4", "-q", device])
    mount = rig.mount(device, "mount")
    strobe = Strobe(rig, values.strobe)
    fio = start_fio(mount, values)
    rig.at_end.append(lambda: (fio.kill(), fio.wait()))
    rig.at_end.insert(0, lambda: strobe.command("track", "stop", device, check=False))
    # fio lays the file out first.
    time.sleep(8)
    failures = 0
    for _ in range(values.points):
        begin = time.monotonic()
        result = strobe.command("snapshot", "c", f"--disk=d={device}", "--json", "--quiet",
                                "--track=keep", check=False)
        seconds = time.monotonic() - begin
        if fio.poll() is not None:
            sys.exit("fio ended")
        if result.returncode != 0:
            failures += 1
            print(f"{seconds:.1f} s: FAILED: {result.stderr.strip()}", flush=True)
            continue
        point = json.loads(result.stdout)
        print(f"{seconds:.1f} s: window {point['freezeWindowMilliseconds']:.0f} ms, "
              f"read {point['disks'][0]['readBytes'] >> 20} MiB, "
              f"changed {point['disks'][0]['changedBytes'] >> 20} MiB", flush=True)
    rig.clean()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
