"""Strobe beside restic and borg: the same disk, repositories in memory, each with its usual settings.

The peers read the image file, which costs them less than the loop device that Strobe reads.
"""

import os

from data import change
from measure import has, run


class Restic:
    name = "restic"

    def __init__(self, bench):
        self.folder = os.path.join(bench.work.memory, "restic")
        self.image, self.target = bench.image, os.path.join(bench.work.memory, "restic-restored")
        self.environment = {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": self.folder,
                            "RESTIC_CACHE_DIR": os.path.join(bench.work.memory, "restic-cache")}

    def call(self, *words):
        return run(["restic", "--quiet", *words], self.environment)

    def init(self):
        self.call("init")

    def snapshot(self):
        return self.call("backup", self.image, "--force")

    def restore(self):
        return self.call("restore", "latest", "--target", self.target)


class Borg:
    name = "borg"

    def __init__(self, bench):
        self.folder = os.path.join(bench.work.memory, "borg")
        self.image, self.target = bench.image, os.path.join(bench.work.memory, "borg-restored")
        home = os.path.join(bench.work.memory, "borg-home")
        self.environment = {"BORG_REPO": self.folder, "BORG_BASE_DIR": home, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.number = 0

    def init(self):
        run(["borg", "init", "--encryption=none"], self.environment)

    def snapshot(self):
        self.number += 1
        return run(["borg", "create", "--compression", "lz4", "--chunker-params", "fixed,65536", "--files-cache", "disabled",
                    f"::{self.number}", self.image], self.environment)

    def restore(self):
        os.makedirs(self.target, exist_ok=True)
        back = os.getcwd()
        os.chdir(self.target)
        try:
            return run(["borg", "extract", "--sparse", f"::{self.number}"], self.environment)
        finally:
            os.chdir(back)


class Strobe:
    name = "strobe"

    def __init__(self, bench):
        self.bench = bench
        self.target = os.path.join(bench.work.memory, "strobe-restored")
        self.folder = None

    def init(self):
        self.folder = self.bench.repository("in memory")

    def snapshot(self):
        return self.bench.strobe(self.folder, "snapshot", "web", "--disk", f"disk={self.bench.device}", "--quiet")

    def restore(self):
        return self.bench.strobe(self.folder, "restore", "web@latest", "--disk", f"disk={self.target}", "--quiet")


def compare(bench):
    if bench.options.no_peers:
        bench.report.note("skipped: restic and borg, as asked")
        return
    tools = [Strobe(bench)]
    for kind in (Restic, Borg):
        if has(kind.name):
            tools.append(kind(bench))
        else:
            bench.report.note(f"skipped: {kind.name} is not installed")
    for tool in tools:
        tool.init()
    steps = {"first snapshot": lambda tool: tool.snapshot(), "unchanged disk again": lambda tool: tool.snapshot()}
    for step, work in steps.items():
        show(bench, step, {tool.name: work(tool) for tool in tools})
    change(bench.device, bench.options.size, 0.01, 1000)
    show(bench, "1 % of the chunks changed", {tool.name: tool.snapshot() for tool in tools})
    costs = {}
    for tool in tools:
        costs[tool.name] = tool.restore()
        bench.drop(tool.target)
        if os.path.exists(tool.target):
            os.remove(tool.target)
    show(bench, "restore to a file in memory", costs)
    for tool in tools:
        size = sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(tool.folder) for name in names)
        bench.report.note(f"repository after these: {tool.name} {size >> 20} MiB")
        bench.drop(tool.folder)


def show(bench, step, costs):
    for name, cost in costs.items():
        if name != "strobe":
            bench.report.add(step, costs["strobe"], name, cost, cost.wall / costs["strobe"].wall)
