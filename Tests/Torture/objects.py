"""What a repository names and what it holds, read as docs/format.md says it, without strobe."""

import json
import os
import struct

from rig import Failure

FOOTER = 128


def layer_segments(path):
    """The segments that a layer names, as hexadecimal text."""
    with open(path, "rb") as file:
        file.seek(-FOOTER, os.SEEK_END)
        footer = file.read(FOOTER)
        if footer[:8] != b"STRBLEND":
            raise Failure(f"{path}: no footer")
        offset, count = struct.unpack_from("<QQ", footer, 8)
        file.seek(offset)
        table = file.read(16 * count)
    return {table[start:start + 16].hex() for start in range(0, len(table), 16)}


def named(repository):
    """The layers and segments that points name: paths within the repository."""
    layers, found = set(), set()
    collections = os.path.join(repository, "collections")
    for collection in os.listdir(collections):
        folder = os.path.join(collections, collection)
        for name in os.listdir(folder):
            if len(name) == 29 and name.endswith(".json") and not name.startswith("."):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    point = json.load(file)
                layers.update(layer for disk in point["disks"] for layer in disk["layers"])
    for layer in layers:
        path = f"layers/{layer[:2]}/{layer}"
        if not os.path.exists(os.path.join(repository, path)):
            raise Failure(f"{path} is named by a point and isn't there")
        found.add(path)
        for segment in layer_segments(os.path.join(repository, path)):
            found.update({f"segments/{segment[:2]}/{segment}", *repaired(repository, segment)})
    return found


def repaired(repository, segment):
    """The segments that hold what was damaged in this one."""
    path = os.path.join(repository, "repairs", segment[:2], segment)
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8") as file:
        ids = {record["segmentID"] for record in json.load(file)["replacements"]}
    return {f"segments/{name[:2]}/{name}" for name in ids}


def held(repository):
    """The layers and segments that are there."""
    found = set()
    for room in ("layers", "segments"):
        for folder, _, names in os.walk(os.path.join(repository, room)):
            found.update(os.path.relpath(os.path.join(folder, name), repository) for name in names)
    return found


def expect_nothing_useless(repository):
    """After a collection of garbage with nobody else at work: what is there is what is named.

    Returns:
        how many objects there are, and their bytes.
    """
    wanted, there = named(repository), held(repository)
    size = {path: os.path.getsize(os.path.join(repository, path)) for path in there}
    if there != wanted:
        useless, lost = sorted(there - wanted), sorted(wanted - there)
        raise Failure(f"{len(useless)} objects that nobody names, {sum(size[path] for path in useless)} "
                      f"bytes: {useless[:4]}; {len(lost)} that are named and gone: {lost[:4]}")
    return len(there), sum(size.values())


def keyframes(repository):
    """How many layers are keyframes."""
    count = 0
    for path in held(repository):
        if path.startswith("layers/"):
            with open(os.path.join(repository, path), "rb") as file:
                count += struct.unpack_from("<I", file.read(16), 12)[0] & 1
    return count


def leftovers(repository):
    """Temporary files, locks and scratch files: none of them when nobody is at work."""
    found = []
    for folder, _, names in os.walk(repository):
        room = os.path.relpath(folder, repository).split("/")[0]
        found += [os.path.relpath(os.path.join(folder, name), repository) for name in names
                  if name.startswith(".") or room in ("locks", "journal")]
    return sorted(found)
