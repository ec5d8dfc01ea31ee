"""Whether restored disks of a test guest show one instant, and in what state their file systems are."""

import os
import tempfile
from dataclasses import dataclass, field

from place import Failure, run


@dataclass
class Verdict:
    """What was found on the disks of one point.

    Attributes:
        says: the checker's line: the last record of each disk, damaged and missing ones.
        is_one_instant: whether they show one.
        unclean: names of the images whose journal has to be replayed.
        broken: what e2fsck(8) complains about, by image.
    """

    says: str
    is_one_instant: bool
    unclean: list = field(default_factory=list)
    broken: dict = field(default_factory=dict)

    def expect(self, is_clean):
        """Fails unless they show one instant of file systems that are whole; `is_clean`: without a replay."""
        if not self.is_one_instant:
            raise Failure(f"the disks don't show one instant: {self.says}")
        if is_clean and self.unclean:
            raise Failure(f"the journal would be replayed (needs_recovery): {', '.join(self.unclean)}")
        if self.broken:
            raise Failure("; ".join(f"e2fsck -fn {name}: {text}" for name, text in self.broken.items()))
        return self


def examine(cache, images):
    """Looks at raw images, in the order in which the guest's writer writes to them. They aren't changed.

    Needs root and a mount namespace of its own (rig.enter_namespace).

    Args:
        cache: the folder with the checker, see build-guest.
    """
    folder = tempfile.mkdtemp(prefix="examined-", dir=os.path.dirname(os.path.abspath(images[0])))
    mounts, copies, verdict = [], [], Verdict("", False)
    try:
        for number, image in enumerate(images):
            copies.append(os.path.join(folder, f"{number}.raw"))
            run(["cp", "--sparse=always", image, copies[-1]])
            if "needs_recovery" in run(["dumpe2fs", "-h", image]).stdout:
                verdict.unclean.append(os.path.basename(image))
            else:
                check(verdict, image, os.path.basename(image))
        for number, copy in enumerate(copies):
            place = os.path.join(folder, f"mount{number}")
            os.mkdir(place)
            run(["mount", "-o", "loop", copy, place])
            mounts.append(place)
        result = run([os.path.join(cache, "verify"), *(f"{place}/records" for place in mounts)],
                     check=False)
        verdict.says = (result.stdout + result.stderr).strip()
        verdict.is_one_instant = result.returncode == 0
    finally:
        for place in mounts:
            run(["umount", place], check=False)
    # The journals have been replayed now.
    for image, copy in zip(images, copies):
        check(verdict, copy, f"{os.path.basename(image)}, mounted once")
    run(["rm", "-r", folder])
    return verdict


def check(verdict, image, name):
    result = run(["e2fsck", "-fn", image], check=False)
    if result.returncode != 0:
        verdict.broken[name] = f"status {result.returncode}: {result.stdout.strip()[-400:]}"
