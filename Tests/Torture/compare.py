"""Comparing disk images: sparse-aware, and precise about what differs."""

import os

BLOCK = 1 << 20


def data_extents(descriptor, size):
    """The ranges of a file that aren't holes: (start, end) pairs, rounded outwards to 4 KiB."""
    found = []
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:
            break
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        found.append((start & ~4095, end))
        offset = end
    return found


def merged(ranges):
    """Sorted ranges without overlaps."""
    result = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def differences(left, right, grain=512):
    """Where two images differ.

    Args:
        left, right: paths of files or block devices.
        grain: bytes; differences are found in units of this size.

    Returns:
        (start, end) byte ranges, rising, merged. A file that is shorter differs in what it lacks.
    """
    first = os.open(left, os.O_RDONLY)
    second = os.open(right, os.O_RDONLY)
    try:
        sizes = [os.lseek(descriptor, 0, os.SEEK_END) for descriptor in (first, second)]
        size = min(sizes)
        found = []
        for start, end in merged(data_extents(first, size) + data_extents(second, size)):
            for offset in range(start, end, BLOCK):
                length = min(BLOCK, end - offset)
                one = os.pread(first, length, offset)
                other = os.pread(second, length, offset)
                if one != other:
                    found += block_differences(one, other, offset, grain)
        if sizes[0] != sizes[1]:
            found.append((size, max(sizes)))
        return merged(found)
    finally:
        os.close(first)
        os.close(second)


def block_differences(one, other, offset, grain):
    # Chunks of a disk begin at multiples of the grain, whatever the extent.
    position = offset // grain * grain
    found = []
    while position < offset + len(one):
        start = max(position - offset, 0)
        end = min(position + grain - offset, len(one))
        if one[start:end] != other[start:end]:
            found.append((position, position + grain))
        position += grain
    return found


def text(ranges, limit=4):
    """Ranges for a reader."""
    total = sum(end - start for start, end in ranges)
    shown = " ".join(f"{start}+{end - start}" for start, end in ranges[:limit])
    return f"{total} bytes in {len(ranges)} ranges: {shown}{' …' if len(ranges) > limit else ''}"


def part(path, start, end):
    """Some bytes of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, end - start, start)
    finally:
        os.close(descriptor)
