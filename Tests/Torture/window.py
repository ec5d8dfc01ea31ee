"""Runs strobe with window.c loaded, so that its guardian stops where a test wants to look or to kill."""

import json
import os
import shutil
import signal
import subprocess
import time

from rig import Failure, die_with_parent, run

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "window.c")
COMPILERS = ("clang", "/opt/swift/usr/bin/clang", "gcc", "cc")
PATIENCE = 180


class Strobe:
    """The program under test, with a repository of its own."""

    def __init__(self, rig, program, stop_limit=8000):
        self.rig = rig
        # A copy: the one that was named may be replaced while the test runs.
        self.program = rig.path("strobe")
        shutil.copy2(program, self.program)
        self.repository = rig.path("repository")
        self.folder = rig.path("window")
        os.mkdir(self.folder)
        self.library = self.compile()
        self.stop_limit = stop_limit
        self.running = None
        rig.at_end.append(self.end)
        self.command("init")

    def compile(self):
        library = self.rig.path("window.so")
        for compiler in COMPILERS:
            if shutil.which(compiler):
                result = run([compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE,
                              "-ldl"], check=False)
                if result.returncode == 0:
                    return library
        raise Failure("neither clang nor gcc can compile window.c")

    def command(self, *words, check=True, timeout=PATIENCE):
        return run([self.program, *words], check=check, timeout=timeout, env=self.environment())

    def json(self, *words):
        return json.loads(self.command(*words, "--json").stdout)

    def environment(self, **more):
        return {**os.environ, "STROBE_REPOSITORY": self.repository, **more}

    def points(self, collection):
        """The identities of the points, oldest first; none when there is no such collection."""
        result = self.command("list", collection, "--json", check=False)
        if result.returncode != 0:
            return []
        found = json.loads(result.stdout)
        lists = [found] if isinstance(found, list) else [
            value for value in found.values() if isinstance(value, list)]
        return [point["id"] for entries in lists for point in entries if "id" in point]

    def start(self, words, stops=(), systems=1):
        """Starts a command; `stops` are places of window.c."""
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
        self.running = RunningCommand(self, words, stops, systems)
        return self.running

    def end(self):
        """Ends what runs, with its guardian, by their numbers."""
        running = self.running
        if running is None:
            return
        for child in running.guardians():
            running.kill_guardian(child, signal.SIGKILL)
        if running.process.poll() is None:
            os.kill(running.process.pid, signal.SIGCONT)
            running.process.kill()
        # Whoever hangs in a write to a frozen file system dies after the thaw, which comes next.


class RunningCommand:
    """A command of strobe that runs."""

    def __init__(self, strobe, words, stops, systems):
        self.folder = strobe.folder
        self.output = strobe.rig.path("stdout")
        self.errors = strobe.rig.path("stderr")
        environment = strobe.environment(
            LD_PRELOAD=strobe.library, STROBE_TORTURE_FOLDER=self.folder,
            STROBE_TORTURE_STOPS="," + ",".join(stops) + ",", STROBE_TORTURE_SYSTEMS=str(systems),
            STROBE_TORTURE_LIMIT=str(strobe.stop_limit))
        self.begin = time.monotonic()
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [strobe.program, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                env=environment, preexec_fn=die_with_parent)
        self.seen = set()

    @property
    def pid(self):
        return self.process.pid

    def next_stop(self):
        """The next place where a guardian waits, as (place, guardian's pid), or None at the moment."""
        for name in os.listdir(self.folder):
            if name.startswith("at.") and name not in self.seen:
                self.seen.add(name)
                _, place, pid = name.split(".")
                return place, int(pid)
        return None

    def go_on(self, place, pid):
        with open(os.path.join(self.folder, f"go.{place}.{pid}"), "w", encoding="utf-8"):
            pass

    def wait_for_stop(self, limit=60.0):
        """Waits for the next place; None when the command ended before."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found = self.next_stop()
            if found:
                return found
            if self.process.poll() is not None:
                return None
            time.sleep(0.0005)
        raise Failure(f"strobe got nowhere within {limit:.0f} s")

    def guardians(self):
        """The guardians that this command started and that live."""
        pids = [int(name.rsplit(".", 1)[1]) for name in os.listdir(self.folder)
                if name.startswith("guardian.")]
        return [pid for pid in pids if self.is_guardian(pid)]

    @staticmethod
    def is_guardian(pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return b"guardian-process" in file.read().split(b"\0")
        except OSError:
            return False

    def kill_guardian(self, pid, number):
        if self.is_guardian(pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def wait(self, limit=PATIENCE):
        """Waits for the end; returns status, standard output, standard error."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"strobe did not end within {limit} s") from None
        with open(self.output, encoding="utf-8", errors="replace") as file:
            output = file.read()
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            errors = file.read()
        return status, output, errors
