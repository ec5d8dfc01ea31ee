"""A folder in memory, and everything that was made for a test: all of it goes when the test ends, however that is."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Torture"))
from rig import Failure, die_with_parent, run  # noqa: E402

SHARED_MEMORY = "/dev/shm"
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
HERE = os.path.dirname(os.path.abspath(__file__))


class Place:
    """A folder; programs that were started; whatever else has to be undone.

    Attributes:
        folder: path of the folder.
    """

    def __init__(self, name, mode=0o700):
        self.folder = tempfile.mkdtemp(prefix=f"strobe-test-{name}-", dir=SHARED_MEMORY)
        os.chmod(self.folder, mode)
        self.undoing = []
        atexit.register(self.clean)
        for number in ENDINGS:
            signal.signal(number, lambda number, _: sys.exit(128 + number))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def make(self, *names):
        """Makes a folder within, where it isn't there yet."""
        path = self.path(*names)
        os.makedirs(path, exist_ok=True)
        return path

    def undo(self, body):
        """Has `body` called at the end; what was noted last comes first."""
        self.undoing.append(body)

    def start(self, words, log, **more):
        """Starts a program that ends with the test. What it says goes to the file `log`."""
        with open(log, "ab") as file:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                preexec_fn=die_with_parent, **more)
        self.undo(lambda: end(process))
        return process

    def clean(self):
        """May be called again."""
        if not os.path.isdir(self.folder):
            return
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
        while self.undoing:
            try:
                self.undoing.pop()()
            except (Failure, OSError, subprocess.SubprocessError) as error:
                print(f"cleaning up: {error}", file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)
        for number, action in before.items():
            signal.signal(number, action)


def end(process):
    """Kills a process that may have ended."""
    if process.poll() is None:
        process.kill()
    process.wait()


def guest_cache(folder=None):
    """The folder with the guest's kernel and initramfs, which are made first where they have to be."""
    folder = os.path.abspath(
        folder or os.environ.get("STROBE_GUEST_CACHE") or "/var/cache/strobe-test-guest")
    run([os.path.join(HERE, "build-guest"), folder], timeout=900)
    return folder
