"""Disks that are no block devices: qcow2 images beside qemu-img, and what it costs to read over NBD."""

import contextlib
import json
import os
import subprocess
import time

from data import change
from load import end_with_parent
from measure import has, run


def qcow2(bench):
    """A qcow2 image that no guest uses, beside qemu-img(1)."""
    if not has("qemu-img"):
        bench.report.note("skipped: qemu-img is not installed")
        return
    image, target = (os.path.join(bench.work.memory, name) for name in ("disk.qcow2", "converted"))
    run(["qemu-img", "convert", "-q", "-O", "qcow2", bench.image, image])
    compressed = ["-c", "-o", "compression_type=zstd"]

    def convert(source, kind, *options):
        cost = run(["qemu-img", "convert", "-q", *options, "-O", kind, source, target])
        os.remove(target)
        return cost

    kept = [bench.repository("in memory")]

    def first():
        bench.drop(kept.pop())
        kept.append(bench.repository("in memory"))
        return bench.strobe(kept[-1], "snapshot", "image", "--disk", f"disk=qcow2:{image}", "--quiet")

    strobe, packed, plain = bench.alternate(
        first, lambda: convert(image, "qcow2", *compressed), lambda: convert(image, "raw"))
    bench.report.add("first snapshot of a qcow2", strobe, "qemu-img convert -c (zstd)", packed,
                     packed.wall / strobe.wall)
    bench.report.add("first snapshot of a qcow2", strobe, "qemu-img convert -O raw", plain, plain.wall / strobe.wall)
    again = lambda: bench.strobe(kept[-1], "snapshot", "image", "--quiet")
    strobe, plain = bench.alternate(again, lambda: convert(image, "raw"))
    bench.report.add("unchanged qcow2 again", strobe, "qemu-img convert -O raw", plain, plain.wall / strobe.wall)

    def back():
        cost = bench.strobe(kept[-1], "restore", "image@latest", "--to", target, "--format", "qcow2", "--quiet")
        run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", bench.image, os.path.join(target, "disk.qcow2")])
        bench.drop(target)
        return cost

    strobe, plain = bench.alternate(back, lambda: convert(bench.image, "qcow2"))
    bench.report.add("restore to a qcow2", strobe, "qemu-img convert raw to qcow2", plain, plain.wall / strobe.wall)
    bench.drop(kept.pop())
    os.remove(image)


SERVERS = {
    "qemu-nbd": lambda socket, image: [
        "qemu-nbd", "--persistent", "--read-only", "--shared=16", "--format=raw", f"--socket={socket}", image],
    "nbdkit": lambda socket, image: [
        "nbdkit", "--foreground", "--exit-with-parent", "--readonly", "--unix", socket, "file", image],
}


@contextlib.contextmanager
def served(bench, server):
    """The disk's image behind an NBD server; the URI."""
    socket = os.path.join(bench.work.memory, f"{server}.sock")
    process = subprocess.Popen(SERVERS[server](socket, bench.image), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent)
    try:
        while not os.path.exists(socket):
            if process.poll() is not None:
                raise SystemExit(f"{server} ended with status {process.returncode}")
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.remove(socket)


def over_nbd(bench):
    """The same content over NBD and from a loop device: Strobe's processor seconds for a gigabyte that it reads."""
    with contextlib.ExitStack() as stack:
        sources = {"loop device": bench.device}
        for server in SERVERS:
            if has(server):
                sources[server] = stack.enter_context(served(bench, server))
            else:
                bench.report.note(f"skipped: {server} is not installed")
        repositories = {name: bench.repository("in memory") for name in sources}
        measure(bench, sources, repositories)
        for repository in repositories.values():
            bench.drop(repository)


def measure(bench, sources, repositories):
    def pass_over(name, *words):
        cost = bench.strobe(repositories[name], "snapshot", "nbd", *words, "--idle", "disk", "--json", "--quiet")
        cost.read = json.loads(cost.output)["disks"][0]["readBytes"]
        return cost

    steps = {"first": [{name: pass_over(name, "--disk", f"disk={source}") for name, source in sources.items()}]}
    steps["unchanged"] = [{name: pass_over(name) for name in sources} for _ in range(bench.options.runs)]
    change(bench.device, bench.options.size, 0.01, 2000)
    steps["1 % changed"] = [{name: pass_over(name) for name in sources}]
    for step, runs in steps.items():
        middle = {name: sorted((costs[name] for costs in runs), key=lambda cost: cost.cpu)[len(runs) // 2]
                  for name in sources}
        for name, cost in middle.items():
            gigabytes = cost.read / 1e9
            cells = {"pass": step, "source": name, "wall s": f"{cost.wall:.2f}", "CPU s": f"{cost.cpu:.2f}",
                     "GB read": f"{gigabytes:.2f}",
                     "CPU s for a GB": f"{cost.cpu / gigabytes:.2f}" if gigabytes else ""}
            figures = {"pass": step, "source": name, "wall": cost.wall, "cpu": cost.cpu, "readBytes": cost.read}
            ratio = middle["loop device"].cpu / cost.cpu if name != "loop device" else None
            bench.report.record("Over NBD: the processor's part, beside a loop device", cells, figures, ratio)
