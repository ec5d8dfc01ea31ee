// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The change tracker's eBPF side: marks every block of a tracked disk that is written.
//
// Compiled by scripts/build-tracker into tracker_object.h. Needs Linux 5.15 with BTF.
//
// Invariants:
//  - A write's range is marked when the write has ended and before whoever waits for it can know: a
//    block that was read after its marks were taken is whole, or will be marked again.
//  - What can't be marked exactly is marked coarser, up to everything (the overflow word). Never nothing.
//
// The kernel skips a program that it is running already on the same processor (a completion interrupt
// during a completion), and only counts that. So the end of requests has three copies of one program:
// a processor is nested at most three deep (task, soft interrupt, hard interrupt), so at least one runs.
// For bio-based disks the table of pending writes has the same effect: user space marks again what is in
// it, so that an end which was skipped does no harm.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "include/tracker_layout.h"

char LICENSE[] SEC("license") = "GPL";

// ---- The kernel's structs, as far as they are needed; offsets come from the running kernel's BTF.

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bio;
struct block_device_operations {
  void *submit_bio;
};
struct request_queue;
struct gendisk {
  int major, first_minor;
  const struct block_device_operations *fops;
  struct request_queue *queue;
};
struct request_queue {
  struct gendisk *disk;
};
struct block_device {
  struct gendisk *bd_disk;
};
struct bvec_iter {
  __u64 bi_sector;
  unsigned int bi_size;
};
struct bio {
  struct bio *bi_next;
  struct block_device *bi_bdev;
  unsigned int bi_opf;
  struct bvec_iter bi_iter;
};
struct request {
  struct request_queue *q;
  unsigned int cmd_flags;
  unsigned int __data_len;
  __u64 __sector;
  struct bio *bio;
};
// Until 5.16 the disk was here.
struct request___old {
  struct gendisk *rq_disk;
};
#pragma clang attribute pop

enum {
  OPERATION_MASK = 0xff,
  OPERATION_READ = 0,
  OPERATION_WRITE = 1,
  OPERATION_FLUSH = 2,
  OPERATION_DISCARD = 3,
  // From here on: commands for the driver, whose data goes to the device when the number is odd.
  OPERATION_DRIVER = 32,
  // Discards that a request can hold: any driver's limit.
  DISCARD_RANGES = 256,
};

// ---- Maps

struct window {
  __u64 start, end;  // sectors of the whole disk
  __u32 slot;        // of `bitmaps`
  __u32 shift;       // a block is 1 << shift sectors
  __u64 level1;      // the word of the bitmap map at which level 1 begins
};
struct disk {
  __u32 count, reserved;
  struct window windows[TRACKER_WINDOWS];
};
struct pending_write {
  __u64 sector;
  __u32 sectors;
  __u32 device;
};

// Tracked disks by the number of the whole disk.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 256);
  __type(key, __u32);
  __type(value, struct disk);
} disks SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, TRACKER_SLOTS);
  __type(key, __u32);
  __array(values, struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
    __uint(max_entries, TRACKER_HEADER_WORDS);
    __type(key, __u32);
    __type(value, __u64);
  });
} bitmaps SEC(".maps");

// Writes to bio-based disks from queueing to completion, by the bio's address.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, TRACKER_PENDING);
  __type(key, __u64);
  __type(value, struct pending_write);
} pending SEC(".maps");

// Which set this is: 16 random bytes, TRACKER_VERSION, the kernel's numbers of its links. Filled by user
// space last: a set whose identity is empty was never complete.
struct identity {
  __u64 generation[2];
  __u64 version;
  __u32 links[8];
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct identity);
} identity SEC(".maps");

// ---- Marking

// Functions that are not inlined are verified once, with any arguments; that keeps loading quick.

__noinline int set_bits(__u32 slot, __u64 index, __u64 bits) {
  void *map = bpf_map_lookup_elem(&bitmaps, &slot);
  if (!map) return 0;
  __u32 key = index;
  __u64 *word = bpf_map_lookup_elem(map, &key);
  // Read first: most writes go where others went, and a locked instruction costs more than a load.
  if (word && (*(volatile __u64 *)word & bits) != bits) __sync_fetch_and_or(word, bits);
  return 0;
}

// Sets bits `first` to `last` of the bitmap that begins at word `base`: at most 130 words.
__noinline int set_range(__u32 slot, __u64 base, __u64 first, __u64 last) {
  __u64 index = base + (first >> 6), end = base + (last >> 6);
  __u64 from_first = ~0ULL << (first & 63), to_last = ~0ULL >> (63 - (last & 63));
  if (index == end) return set_bits(slot, index, from_first & to_last);
  set_bits(slot, index, from_first);
  for (int step = 0; step < 128; step++) {
    if (++index >= end) break;
    set_bits(slot, index, ~0ULL);
  }
  return set_bits(slot, end, to_last);
}

// Marks blocks `first` to `last` in the bitmap at `slot`. Whole groups are marked in level 2, so a range
// costs at most 64 words at either end and two of level 2 (a bio or request is shorter than 4 GiB, a
// group of blocks not shorter than 16 MiB).
__noinline int mark_blocks(__u32 slot, __u64 base, __u64 first, __u64 last) {
  __u64 group_blocks = 1ULL << TRACKER_GROUP_SHIFT;
  __u64 first_whole = (first + group_blocks - 1) >> TRACKER_GROUP_SHIFT;
  __u64 end_whole = (last + 1) >> TRACKER_GROUP_SHIFT;
  // Touches two groups at most, neither of them whole.
  if (first_whole >= end_whole) return set_range(slot, base, first, last);
  if (end_whole - first_whole > 64 * 64)
    return set_bits(slot, TRACKER_WORD_OVERFLOW, TRACKER_OVERFLOW_RANGE);
  set_range(slot, TRACKER_HEADER_WORDS, first_whole, end_whole - 1);
  __u64 whole_first = first_whole << TRACKER_GROUP_SHIFT;
  __u64 whole_end = end_whole << TRACKER_GROUP_SHIFT;
  if (first < whole_first) set_range(slot, base, first, whole_first - 1);
  if (last >= whole_end) set_range(slot, base, whole_end, last);
  return 0;
}

// Marks sectors of a disk in every window that they touch.
__noinline int mark_sectors(__u32 device, __u64 sector, __u64 count) {
  struct disk *disk = bpf_map_lookup_elem(&disks, &device);
  if (!disk) return 0;
  __u64 end = sector + count;
  for (int index = 0; index < TRACKER_WINDOWS && index < disk->count; index++) {
    struct window *window = &disk->windows[index];
    __u64 from = sector > window->start ? sector : window->start;
    __u64 to = end < window->end ? end : window->end;
    if (from >= to) continue;
    __u32 shift = window->shift & 63;
    mark_blocks(window->slot, window->level1, (from - window->start) >> shift,
                (to - 1 - window->start) >> shift);
  }
  return 0;
}

__noinline int mark_everything(__u32 device, __u64 why) {
  struct disk *disk = bpf_map_lookup_elem(&disks, &device);
  if (!disk) return 0;
  for (int index = 0; index < TRACKER_WINDOWS && index < disk->count; index++) {
    set_bits(disk->windows[index].slot, TRACKER_WORD_OVERFLOW, why);
  }
  return 0;
}

// ---- What the kernel tells

static __always_inline __u32 number_of(struct gendisk *disk) {
  return (__u32)disk->major << 20 | (__u32)disk->first_minor;
}

// What an operation does to the disk's content.
enum effect { EFFECT_NONE, EFFECT_RANGE, EFFECT_UNKNOWN };

static __always_inline enum effect effect_of(__u32 operation, __u32 bytes) {
  if (operation == OPERATION_READ || operation == OPERATION_FLUSH) return EFFECT_NONE;
  if (operation >= OPERATION_DRIVER) return operation & 1 ? EFFECT_UNKNOWN : EFFECT_NONE;
  if (bytes) return EFFECT_RANGE;
  // A write of nothing is a flush; a zone operation of nothing means a zone or all zones.
  return operation == OPERATION_WRITE ? EFFECT_NONE : EFFECT_UNKNOWN;
}

// The last partial sector counts as well.
static __always_inline __u64 sectors_of(__u32 bytes) { return ((__u64)bytes + 511) >> 9; }

// A bio is queued: its partition is resolved by now (since 4.14), sectors are those of the whole disk.
SEC("tp_btf/block_bio_queue")
int BPF_PROG(strobe_queue, struct bio *bio) {
  __u32 operation = bio->bi_opf & OPERATION_MASK;
  if (operation == OPERATION_READ) return 0;
  struct gendisk *disk = bio->bi_bdev->bd_disk;
  __u32 device = number_of(disk);
  if (!bpf_map_lookup_elem(&disks, &device)) return 0;
  __u32 bytes = bio->bi_iter.bi_size;
  if (effect_of(operation, bytes) == EFFECT_UNKNOWN)
    mark_everything(device, TRACKER_OVERFLOW_RANGE);
  // A flush has a range of no sectors, but is remembered, so that its end is not taken for that of an
  // unknown write.
  struct pending_write write = {bio->bi_iter.bi_sector, sectors_of(bytes), device};
  mark_sectors(device, write.sector, write.sectors);
  if (!disk->fops->submit_bio) return 0;
  __u64 key = (__u64)bio;
  struct pending_write *old = bpf_map_lookup_elem(&pending, &key);
  // The address is used again, so that write has ended, and nobody told.
  if (old) mark_sectors(old->device, old->sector, old->sectors);
  if (bpf_map_update_elem(&pending, &key, &write, BPF_ANY))
    mark_everything(device, TRACKER_OVERFLOW_PENDING);
  return 0;
}

// A request may hold discards of many ranges, anywhere.
__noinline int mark_discards(__u32 device, __u64 first) {
  struct bio *bio = (struct bio *)first;
  for (int index = 0; index < DISCARD_RANGES; index++) {
    if (!bio) return 0;
    mark_sectors(device, BPF_CORE_READ(bio, bi_iter.bi_sector),
                 sectors_of(BPF_CORE_READ(bio, bi_iter.bi_size)));
    bio = BPF_CORE_READ(bio, bi_next);
  }
  mark_everything(device, TRACKER_OVERFLOW_RANGE);
  return 0;
}

static __always_inline int request_ended(struct request *request, __u32 bytes) {
  __u32 operation = request->cmd_flags & OPERATION_MASK;
  if (operation == OPERATION_READ || operation == OPERATION_FLUSH) return 0;
  struct gendisk *disk;
  if (bpf_core_field_exists(((struct request_queue *)0)->disk)) {
    disk = request->q->disk;
  } else {
    struct request___old *old = (void *)request;
    disk = BPF_CORE_READ(old, rq_disk);
  }
  if (!disk) return 0;
  __u32 device = (__u32)BPF_CORE_READ(disk, major) << 20 | (__u32)BPF_CORE_READ(disk, first_minor);
  if (!bpf_map_lookup_elem(&disks, &device)) return 0;
  // After an error the driver may name less than it wrote.
  if (request->__data_len > bytes) bytes = request->__data_len;
  enum effect effect = effect_of(operation, bytes);
  if (effect == EFFECT_NONE) return 0;
  if (effect == EFFECT_UNKNOWN) {
    mark_everything(device, TRACKER_OVERFLOW_RANGE);
    return 0;
  }
  mark_sectors(device, request->__sector, sectors_of(bytes));
  if (operation == OPERATION_DISCARD) {
    // Read as a number: the verifier passes no kernel pointers to functions that it checks once.
    __u64 first = 0;
    BPF_CORE_READ_INTO(&first, request, bio);
    mark_discards(device, first);
  }
  return 0;
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(strobe_request1, struct request *request, int error, unsigned int bytes) {
  return request_ended(request, bytes);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(strobe_request2, struct request *request, int error, unsigned int bytes) {
  return request_ended(request, bytes);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(strobe_request3, struct request *request, int error, unsigned int bytes) {
  return request_ended(request, bytes);
}

// A bio without a request has ended. Its range was consumed or cut by now: what was queued counts.
SEC("tp_btf/block_bio_complete")
int BPF_PROG(strobe_bio, struct request_queue *queue, struct bio *bio) {
  __u32 operation = bio->bi_opf & OPERATION_MASK;
  if (operation == OPERATION_READ || operation == OPERATION_FLUSH) return 0;
  __u64 key = (__u64)bio;
  struct pending_write *write = bpf_map_lookup_elem(&pending, &key);
  struct gendisk *disk = bio->bi_bdev->bd_disk;
  if (write) {
    mark_sectors(write->device, write->sector, write->sectors);
    // NVMe multipath tells of parts on the way, with another queue than the bio's.
    if (disk->queue == queue) bpf_map_delete_elem(&pending, &key);
    return 0;
  }
  __u32 device = number_of(disk);
  if (!bpf_map_lookup_elem(&disks, &device) || !disk->fops->submit_bio) return 0;
  // Queued before tracking began, or redirected from another disk: nobody knows which sectors.
  mark_everything(device, TRACKER_OVERFLOW_UNKNOWN);
  return 0;
}
