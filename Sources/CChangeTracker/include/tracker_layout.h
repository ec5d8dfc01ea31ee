// What the eBPF program and the Swift room share: sizes, indices and numbers, no code.
#ifndef STROBE_TRACKER_LAYOUT_H
#define STROBE_TRACKER_LAYOUT_H

enum {
  // Raised with every change of the maps, the header or what the program does.
  TRACKER_VERSION = 1,

  // Windows that one disk can have: itself and partitions of it.
  TRACKER_WINDOWS = 16,
  // Bitmaps that one program set can have.
  TRACKER_SLOTS = 256,
  // Writes to bio-based disks that can be in flight.
  TRACKER_PENDING = 16384,

  // A bitmap map is an array of 64-bit words: header, level 2, level 1.
  TRACKER_HEADER_WORDS = 64,
  // Blocks that one bit of level 2 stands for, as a power of two.
  TRACKER_GROUP_SHIFT = 12,

  // The word of the header that eBPF writes.
  TRACKER_WORD_OVERFLOW = 16,

  // Why everything counts as written: bits of the overflow word.
  TRACKER_OVERFLOW_PENDING = 1,   // more writes in flight than TRACKER_PENDING
  TRACKER_OVERFLOW_RANGE = 2,     // a command that names no range of sectors
  TRACKER_OVERFLOW_UNKNOWN = 4,   // the end of a write whose beginning was not seen
  TRACKER_OVERFLOW_MERGED = 8,    // set by user space: marks that were put back
  TRACKER_OVERFLOW_MISSED = 16,   // set by user space: the kernel skipped a program
};

#endif
