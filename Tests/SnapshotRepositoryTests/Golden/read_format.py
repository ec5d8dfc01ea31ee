#!/usr/bin/env python3
"""Reconstructs one disk of a restore point. Written from docs/format.md alone.

usage: read_format.py REPOSITORY COLLECTION POINT-ID DISK OUTPUT
"""
import ctypes
import hashlib
import json
import os
import struct
import sys


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


# The plain functions of libxxhash: not those that Strobe calls, which choose their vectors themselves.
xxhash = ctypes.CDLL("libxxhash.so.0")
xxhash.XXH3_64bits.restype = ctypes.c_uint64
xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
xxhash.XXH3_128bits_withSecret.restype = Hash128
xxhash.XXH3_128bits_withSecret.argtypes = [ctypes.c_char_p, ctypes.c_size_t] * 2


def need(condition, what):
    if not condition:
        sys.exit("damaged: " + what)


def checksum(body, found, what):
    need(xxhash.XXH3_64bits(bytes(body), len(body)) == found, what + " checksum")


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def document(*path):  # section 3
    data = read(*path)
    tail = data[-46:]
    need(tail.startswith(b',\n  "checksum" : "xxh3-64:') and tail.endswith(b'"\n}\n'), path[-1])
    checksum(data[:-46], int(tail[26:42], 16), path[-1])
    value = json.loads(data)
    need(value["format"] in (1, 2, 3), path[-1] + " format")
    need(value["format"] >= 2 or value.get("fingerprint") in (None, "xxh3-128"), path[-1] + " format")
    return value


def lz4_block(data, size):  # section 5, encoding 1
    out = bytearray()
    at = 0

    def length(nibble, at):
        total = nibble
        while nibble == 15:
            total += data[at]
            at += 1
            if data[at - 1] != 255:
                break
        return total, at

    while True:
        token = data[at]
        literals, at = length(token >> 4, at + 1)
        out += data[at:at + literals]
        at += literals
        if at >= len(data):
            break
        distance = data[at] | data[at + 1] << 8
        match, at = length(token & 15, at + 2)
        need(0 < distance <= len(out), "an LZ4 match")
        for _ in range(match + 4):
            out.append(out[-distance])
    need(len(out) == size, "an LZ4 block")
    return bytes(out)


class Layer:  # section 6
    def __init__(self, repository, name):
        self.data = data = read(repository, "layers", name[:2], name)
        magic, version, flags, identity, self.size, self.chunk = struct.unpack_from("<8sII16sQI", data)
        need((magic, version, identity.hex()) == (b"STRBLAYR", 1, name), name + " header")
        need(flags in (0, 1) and not any(data[44:120]), name + " reserved bytes")
        checksum(data[:120], struct.unpack_from("<Q", data, 120)[0], name + " header")
        foot = data[-128:]
        magic, table, segments, directory, groups, changed, stored, tables = struct.unpack_from("<8s7Q", foot)
        need(magic == b"STRBLEND" and not any(foot[64:120]), name + " footer")
        checksum(foot[:120], struct.unpack_from("<Q", foot, 120)[0], name + " footer")
        need(directory == table + 16 * segments and directory + 16 * groups + 128 == len(data), name + " tables")
        checksum(data[table:-128], tables, name + " tables")
        self.keyframe = flags == 1
        self.count = -(-self.size // self.chunk)
        self.segments = [data[table + 16 * i:table + 16 * i + 16].hex() for i in range(segments)]
        self.chunks = {}
        end = 128
        for entry in range(groups):
            index, length, offset = struct.unpack_from("<IIQ", data, directory + 16 * entry)
            need(offset == end, name + " directory")
            self.group(index, data[offset:offset + length], name)
            end = offset + length
        need(end == table, name + " directory")
        kept = [c for c in self.chunks.values() if c]
        need((len(self.chunks), len(kept)) == (changed, stored), name + " counts")

    def group(self, index, data, name):  # section 6.2
        found, stored, mask = struct.unpack_from("<IIQ", data)
        words = [w for w in range(64) if mask >> w & 1]
        k = len(words)
        need(found == index and len(data) == 16 + 16 * k + 32 * stored + 8, name + " group")
        checksum(data[:-8], struct.unpack_from("<Q", data, len(data) - 8)[0], name + " group")
        rank = 0
        for place, word in enumerate(words):
            changed, kept = (struct.unpack_from("<Q", data, 16 + 8 * (p + place))[0] for p in (0, k))
            need(changed and not kept & ~changed, name + " bitmap")
            for bit in range(64):
                if not changed >> bit & 1:
                    continue
                chunk = None
                if kept >> bit & 1:
                    at = 16 + 16 * k + 16 * rank
                    chunk = (data[at:at + 16],) + struct.unpack_from("<IIQ", data, at + 16 * stored)
                    rank += 1
                self.chunks[index * 4096 + word * 64 + bit] = chunk
        need(rank == stored, name + " stored count")


def content(repository, segment, fingerprint, length, offset, size, secret, kind):  # section 5
    data = read(repository, "segments", segment[:2], segment)
    magic, version, zero, identity = struct.unpack_from("<8sII16s", data)
    need((magic, version, zero, identity.hex()) == (b"STRBSEGM", 1, 0, segment), segment)
    need(not any(data[32:56]), segment + " reserved bytes")
    checksum(data[:56], struct.unpack_from("<Q", data, 56)[0], segment)
    magic, encoding, stored, whole, mark = struct.unpack_from("<4sIII16s", data, offset)
    need(magic == b"CHNK" and mark == fingerprint and not any(data[offset + 32:offset + 48]), segment)
    need(stored + 48 == length and whole == size and encoding in (0, 1), segment)
    body = data[offset + 48:offset + length]
    plain = lz4_block(body, size) if encoding == 1 else body
    need(len(plain) == size and any(plain), segment)
    plain = bytes(plain)
    need(fingerprint_of(plain, secret, kind) == fingerprint, segment + " fingerprint")
    return plain


def fingerprint_of(plain, secret, kind):  # section 4
    if kind == "sha256-128":
        mark = hashlib.sha256(secret[:64] + plain).digest()[:16]
    else:
        keyed = xxhash.XXH3_128bits_withSecret(plain, len(plain), secret, len(secret))
        mark = struct.pack("<QQ", keyed.low, keyed.high)
    return mark if any(mark) else struct.pack("<QQ", 1, 0)


def main(repository, collection, identity, name, output):
    document(repository, "config.json")
    document(repository, "collections", collection, "collection.json")
    point = document(repository, "collections", collection, identity + ".json")
    need(point["id"] == identity and point["collection"] == collection, "the point")
    disk = next(disk for disk in point["disks"] if disk["name"] == name)
    layers = [Layer(repository, layer) for layer in disk["layers"]]
    need(layers[-1].size == disk["size"], "the disk's size")
    need(not any(layer.keyframe for layer in layers[1:]), "a keyframe within a chain")
    size, chunk = disk["size"], point["chunkSize"]
    need(all(layer.chunk == chunk for layer in layers), "the chunk size")
    resolved = {}
    limit = layers[-1].count  # section 7
    for layer in reversed(layers):
        limit = min(limit, layer.count)
        for position, found in layer.chunks.items():
            if position < limit and position not in resolved:
                resolved[position] = found and (layer.segments[found[1]], found[0], found[2], found[3])
    secret = bytes.fromhex(point["fingerprintSecret"])
    need(len(secret) == 192, "the secret")
    kind = point.get("fingerprint") or "xxh3-128"
    need(kind in ("xxh3-128", "sha256-128"), "the kind of fingerprint")
    with open(output, "wb") as file:
        file.truncate(size)
        for position, found in resolved.items():
            if found:
                file.seek(position * chunk)
                length = min(chunk, size - position * chunk)
                file.write(content(repository, *found, length, secret, kind))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
