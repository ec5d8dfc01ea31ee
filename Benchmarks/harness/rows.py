"""What is measured, one function a group of rows."""

import functools
import json
import os
import shutil
import subprocess

import guests
import images
import peers
import tracked
import windows
import writers
from data import call, change, make_disk
from measure import Cost, best_fio_read, fio, has, median, run


class Bench:
    def __init__(self, work, options, report):
        self.work, self.options, self.report = work, options, report
        self.strobe_program = os.path.join(options.programs, "strobe")
        self.tool = os.path.join(options.programs, "strobe-bench")
        self.folder = {"in memory": work.memory, "on disk": work.disk}
        self.made = 0
        self.content = self.stored = None  # MiB of the disk, as it is and compressed

    @functools.cached_property
    def disk(self):
        """Image and device of the disk of most rows; making it takes a while."""
        return make_disk(self.work, self.options.size)

    @property
    def image(self):
        return self.disk[0]

    @property
    def device(self):
        return self.disk[1]

    def repository(self, place):
        self.made += 1
        path = os.path.join(self.folder[place], f"repository-{self.made}")
        self.strobe(path, "init", "--quiet")
        return path

    def strobe(self, repository, *words):
        return run([self.strobe_program, *words, "--repository", repository])

    def drop(self, path):
        shutil.rmtree(path, ignore_errors=True)

    def alternate(self, *sides):
        """Runs the sides in turn and returns the median cost of each."""
        costs = [[] for _ in sides]
        for _ in range(self.options.runs):
            for side, kept in zip(sides, costs):
                kept.append(side())
        return [median(kept) for kept in costs]

    def codec(self, kind="compress"):
        """What LZ4 alone needs for the disk's content on all cores at once, now."""
        figures = json.loads(run([self.tool, "codec", self.image]).output)
        self.content, self.stored = figures["content"] >> 20, figures["stored"] >> 20
        return Cost(figures[kind + "Wall"], figures[kind + "CPU"], 0)


def unchanged(bench):
    """The disk again, unchanged: a scan, against the fastest sequential read of the same device."""
    repository = bench.repository("in memory")
    bench.strobe(repository, "snapshot", "web", "--disk", f"disk={bench.device}", "--quiet")
    again = lambda: bench.strobe(repository, "snapshot", "web", "--quiet")
    dd = lambda: run(["dd", f"if={bench.device}", "of=/dev/null", "bs=1M", "iflag=direct", "status=none"])
    def once():
        """The pass alone, as fio's figure is the reading alone: without starting and ending a process."""
        cost = bench.strobe(repository, "snapshot", "web", "--json")
        cost.wall = json.loads(cost.output)["seconds"]
        return cost
    if has("fio"):
        _, way = best_fio_read(bench.device, bench.options.size)
        def read():
            seconds = fio(bench.device, "read", bench.options.size, *way)
            return Cost(seconds, 0, 0)
        strobe, fastest = bench.alternate(once, read)
        bench.report.add("unchanged disk again, the pass", strobe, f"fio, best of 12 ways ({way[0]} × {way[1]} × {way[2]})",
                         Cost(fastest.wall, None, 0), fastest.wall / strobe.wall, 1.0)
    else:
        bench.report.note("skipped: fio is not installed")
    strobe, plain = bench.alternate(again, dd)
    bench.report.add("unchanged disk again, the command", strobe, "dd bs=1M iflag=direct", plain, plain.wall / strobe.wall)
    bench.drop(repository)


def fingerprints(bench):
    """What SHA-256 costs beside XXH3: alone in memory, and in a scan of the unchanged disk; processor seconds."""
    mebibytes = 64 if bench.options.smoke else 1024
    rates = json.loads(run([bench.tool, "fingerprints", str(mebibytes)]).output)
    seconds = {(rate["kind"], rate["chunkSize"]): (mebibytes << 20) / rate["bytesPerCPUSecond"] for rate in rates}
    for size in sorted({size for _, size in seconds}):
        sha, xxh3 = (Cost(seconds[kind, size], seconds[kind, size], 0) for kind in ("sha256-128", "xxh3-128"))
        bench.report.add(f"SHA-256 of {mebibytes} MiB in chunks of {size >> 10} KiB", sha, "XXH3", xxh3, xxh3.cpu / sha.cpu)
    def scan(kind):
        repository = os.path.join(bench.work.memory, f"repository-{kind}")
        bench.strobe(repository, "init", "--fingerprint", kind, "--quiet")
        bench.strobe(repository, "snapshot", "web", "--disk", f"disk={bench.device}", "--quiet")
        return repository, lambda: bench.strobe(repository, "snapshot", "web", "--quiet")
    places, sides = zip(*(scan(kind) for kind in ("sha256", "xxh3")))
    sha, xxh3 = bench.alternate(*sides)
    bench.report.add("unchanged disk again, SHA-256", sha, "XXH3", xxh3, xxh3.cpu / sha.cpu)
    for place in places:
        bench.drop(place)


def first(bench):
    """The first, full snapshot, against the slower of LZ4's own speed and the repository's writing."""
    bench.codec()
    for place in bench.folder:
        kept = []
        def snapshot():
            if kept:
                bench.drop(kept.pop())
            kept.append(bench.repository(place))
            os.sync()
            return bench.strobe(kept[-1], "snapshot", "web", "--disk", f"disk={bench.device}", "--quiet")
        stored = max(bench.stored, 1)
        scratch = os.path.join(bench.folder[place], "written")
        def write():
            os.sync()
            seconds = fio(scratch, "write", stored, extra=("--end_fsync=1",)) if has("fio") else 0
            if os.path.exists(scratch):
                os.remove(scratch)
            return Cost(seconds, 0, 0)
        strobe, written, compress = bench.alternate(snapshot, write, bench.codec)
        limit = max(compress, written, key=lambda cost: cost.wall)
        what = "LZ4 alone on all cores" if limit is compress else f"fio writing {stored} MiB"
        bench.report.add(f"first snapshot, repository {place}", strobe, what, limit, limit.wall / strobe.wall, 0.85)
        bench.drop(kept.pop())


def changed(bench):
    """One chunk in a hundred overwritten at random places."""
    repository = bench.repository("in memory")
    bench.strobe(repository, "snapshot", "web", "--disk", f"disk={bench.device}", "--quiet")
    seeds = iter(range(100))
    def again():
        change(bench.device, bench.options.size, 0.01, next(seeds))
        return bench.strobe(repository, "snapshot", "web", "--quiet")
    dd = lambda: run(["dd", f"if={bench.device}", "of=/dev/null", "bs=1M", "iflag=direct", "status=none"])
    strobe, plain = bench.alternate(again, dd)
    bench.report.add("1 % of the chunks changed", strobe, "dd bs=1M iflag=direct", plain, plain.wall / strobe.wall)
    bench.drop(repository)


def restore(bench):
    """A full restore, against the slower of decompression and the target's sequential writing."""
    bench.codec()
    content = max(bench.content, 1)
    for place in bench.folder:
        repository = bench.repository(place)
        bench.strobe(repository, "snapshot", "web", "--disk", f"disk={bench.device}", "--quiet")
        for kind in ("device", "file"):
            def target(use):
                path = os.path.join(bench.work.memory, "target.raw")
                if kind == "device":
                    call("truncate", "-s", f"{bench.options.size}M", path)
                    device = bench.work.loop(path)
                    try:
                        return use(device)
                    finally:
                        bench.work.detach(device)
                        os.remove(path)
                try:
                    return use(path)
                finally:
                    os.remove(path)
            back = lambda: target(lambda path: bench.strobe(repository, "restore", "web@latest", "--disk", f"disk={path}", "--quiet"))
            write = lambda: target(lambda path: Cost(fio(path, "write", content), 0, 0)) if has("fio") else Cost(0, 0, 0)
            strobe, written, decompress = bench.alternate(back, write, lambda: bench.codec("decompress"))
            limit = max(decompress, written, key=lambda cost: cost.wall)
            what = "LZ4 alone on all cores" if limit is decompress else f"fio writing {content} MiB to such a {kind}"
            row = f"restore to a {kind} in memory, repository {place}"
            bench.report.add(row, strobe, what, limit, limit.wall / strobe.wall, 0.85)
            both = Cost(decompress.wall + written.wall, decompress.cpu, 0)
            bench.report.add(row, strobe, "LZ4, then fio: both need the same cores", both, both.wall / strobe.wall)
        bench.drop(repository)


def chain(bench):
    """The same disk through one layer and through a thousand."""
    megabytes = 32 if bench.options.smoke else 512
    image = os.path.join(bench.work.memory, "chain.raw")
    call("cp", "--sparse=always", bench.image, image)
    call("truncate", "-s", f"{megabytes}M", image)
    repository = bench.repository("in memory")
    made = json.loads(run([bench.tool, "chain", repository, image, bench.options.layers, 20, bench.options.layers + 1]).output)
    bench.strobe(repository, "snapshot", "flat", "--disk", f"disk={image}", "--quiet")
    def back(collection):
        path = os.path.join(bench.work.memory, "target.raw")
        cost = bench.strobe(repository, "restore", f"{collection}@latest", "--disk", f"disk={path}", "--quiet")
        same = subprocess.run(["cmp", "-s", path, image]).returncode == 0
        os.remove(path)
        if not same:
            raise SystemExit(f"{collection} restored wrongly")
        return cost
    long, short = bench.alternate(lambda: back("chain"), lambda: back("flat"))
    bench.report.add(f"restore of {megabytes} MiB through {made['layers']} layers", long, "through 1 layer", short,
                     long.wall / short.wall, 1.1, at_least=False)
    bench.drop(repository)
    os.remove(image)


def listing(bench):
    """A list of ten thousand points, with and without its cache."""
    image = os.path.join(bench.work.memory, "tiny.raw")
    call("truncate", "-s", "1M", image)
    repository = bench.repository("in memory")
    run([bench.tool, "chain", repository, image, bench.options.points, 1, 32])
    bench.strobe(repository, "list", "chain")
    warm = median([bench.strobe(repository, "list", "chain") for _ in range(bench.options.runs)])
    bench.report.add(f"list of {bench.options.points} points", warm, "the budget of 0.2 s", None, warm.wall / 0.2, 1.0, at_least=False)
    bench.drop(os.path.join(repository, "cache"))
    cold = bench.strobe(repository, "list", "chain")
    bench.report.add(f"list of {bench.options.points} points, cache deleted", cold, "", None)
    bench.drop(repository)
    os.remove(image)


def memory(bench):
    """Peak memory of commands on a sparse disk of 1 TiB."""
    image = os.path.join(bench.work.memory, "huge.raw")
    call("truncate", "-s", "1T", image)
    size = min(bench.options.size, 1024)
    call("dd", f"if={bench.image}", f"of={image}", "bs=1M", f"count={size}", "conv=notrunc", "seek=500000")
    device = bench.work.loop(image)
    repository = bench.repository("in memory")
    target = os.path.join(bench.work.memory, "huge-restored.raw")
    commands = {
        "first snapshot": ["snapshot", "huge", "--disk", f"disk={device}", "--quiet"],
        "snapshot, unchanged": ["snapshot", "huge", "--quiet"],
        "restore": ["restore", "huge@latest", "--disk", f"disk={target}", "--quiet"],
        "verify": ["verify", "huge", "--quiet"],
        "diff": ["diff", "huge@-1", "huge@latest"],
    }
    limit = 256 << 20
    for name, words in commands.items():
        cost = bench.strobe(repository, *words)
        bench.report.add(f"1 TiB sparse disk, {name}", cost, "256 MiB of memory", None, cost.memory / limit, 1.0, at_least=False)
    bench.work.detach(device)
    os.remove(image)
    os.remove(target)
    bench.drop(repository)


ALL = {"unchanged": unchanged, "fingerprints": fingerprints, "first": first, "changed": changed, "restore": restore, "chain": chain,
       "list": listing, "memory": memory, "peers": peers.compare,
       "window": windows.window, "writer": writers.writer, "change": tracked.change_against_size,
       "guests": guests.guests, "qcow2": images.qcow2, "nbd": images.over_nbd}
