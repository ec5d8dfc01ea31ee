"""Whether a restored disk is a whole file system that needs no repair."""

import re

from compare import differences
from rig import Failure, run
from writers import last_record


def check(rig, kind, images):
    """Checks the restored images of one file system. They may be changed by that.

    Args:
        kind: ext4, xfs or btrfs.
        images: paths; several for a Btrfs of several devices.
    """
    {"ext4": check_ext4, "xfs": check_xfs, "btrfs": check_btrfs}[kind](rig, images)


def check_ext4(_, images):
    features = run(["dumpe2fs", "-h", images[0]]).stdout
    if "needs_recovery" in features:
        raise Failure("ext4: the journal would be replayed (needs_recovery)")
    result = run(["e2fsck", "-fn", images[0]], check=False)
    if result.returncode != 0:
        raise Failure(f"e2fsck -fn: {result.stdout[-800:]}")


def check_xfs(rig, images):
    """A frozen XFS always has a log with one record, which its freeze writes for the list of unlinked
    inodes (xfs_fs_freeze in fs/xfs/xfs_super.c), and counters of free blocks that only mounting sums up.
    So the check is made after mounting it once."""
    device = rig.attach(images[0])
    try:
        place = rig.mount(device, "checked", "nouuid")
        rig.unmount(place)
        result = run(["xfs_repair", "-n", device], check=False)
    finally:
        rig.detach(device)
    if result.returncode != 0 or "ALERT" in result.stderr + result.stdout:
        raise Failure(f"xfs_repair -n: {(result.stdout + result.stderr)[-800:]}")


def check_btrfs(rig, images):
    for image in images:
        text = run(["btrfs", "inspect-internal", "dump-super", image]).stdout
        root = re.search(r"^log_root\s+(\d+)", text, re.MULTILINE)
        if not root or root[1] != "0":
            raise Failure("btrfs: the log tree would be replayed (log_root is not 0)")
    devices = [rig.attach(image) for image in images]
    try:
        result = check_among(devices)
    finally:
        for device in devices:
            rig.detach(device)
    text = result.stdout + result.stderr
    if result.returncode != 0 or "no error found" not in text:
        raise Failure(f"btrfs check --readonly: {text[-800:]}")


def check_among(devices):
    """btrfs(8) looks for the other devices of a file system by its identity, which the original shares:
    it must not see any but these."""
    numbers = " ".join(device.removeprefix("/dev/loop") for device in devices)
    script = (f"mount -t tmpfs none /dev && mkdir -p /dev/mapper && for n in {numbers}; do "
              f"mknod /dev/loop$n b 7 $n || exit 9; done; mknod /dev/null c 1 3; "
              f"exec btrfs check --readonly --force {devices[0]}")
    return run(["unshare", "-m", "--propagation", "private", "sh", "-c", script], check=False)


def check_order(rig, images):
    """The writer that takes turns: what the second disk has, the first has."""
    last = []
    for (kind, image), options in zip(images, ("ro,noload", "ro,norecovery,nouuid")):
        device = rig.attach(image)
        try:
            place = rig.mount(device, "checked", options, kind)
            last.append(last_record(place))
            rig.unmount(place)
        finally:
            rig.detach(device)
    first, second = last
    if not second <= first <= second + 1:
        raise Failure(f"the disks show different instants: record {first} on the first, {second} on "
                      "the second")
    return last


def explain(ranges, restored, candidates):
    """Says of the first differences what the restored disk has there instead."""
    words = []
    for start, end in ranges[:3]:
        with open(restored, "rb") as file:
            file.seek(start)
            has = file.read(end - start)
        if not any(has):
            words.append(f"{start}: zeros")
            continue
        for name, path in candidates:
            with open(path, "rb") as file:
                file.seek(start)
                if file.read(end - start) == has:
                    words.append(f"{start}: as {name}")
                    break
        else:
            words.append(f"{start}: something else")
    return "; ".join(words)


def changed_chunks(old, new, chunk_size):
    """The chunks that differ between two images, as a set of positions."""
    found = set()
    for start, end in differences(old, new):
        found.update(range(start // chunk_size, (end - 1) // chunk_size + 1))
    return found
