// The change tracker's eBPF object, and atomic access to the bitmaps that it shares with its user.
#ifndef STROBE_CCHANGETRACKER_H
#define STROBE_CCHANGETRACKER_H

#include <stddef.h>
#include <stdint.h>

#include "tracker_layout.h"

// The ELF object for bpf_object__open_mem, aligned to 8 bytes, and its size in bytes.
const void *cchange_tracker_object(size_t *size);

// Whether a BPF file system is mounted at `path` (statfs(2), BPF_FS_MAGIC): 1 or 0.
int cchange_tracker_is_bpf_file_system(const char *path);

// Atomic access to words in memory that others map as well; sequentially consistent but for `peek`.
static inline uint64_t cchange_tracker_peek64(const uint64_t *word) {
  return __atomic_load_n(word, __ATOMIC_RELAXED);
}
// The index of the first word from `start` that isn't 0, or `end`. Relaxed loads.
static inline size_t cchange_tracker_next64(const uint64_t *words, size_t start, size_t end) {
  while (start < end && __atomic_load_n(&words[start], __ATOMIC_RELAXED) == 0) start++;
  return start;
}
static inline uint64_t cchange_tracker_load64(const uint64_t *word) {
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
static inline void cchange_tracker_store64(uint64_t *word, uint64_t value) {
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
static inline uint64_t cchange_tracker_exchange64(uint64_t *word, uint64_t value) {
  return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
}
static inline uint64_t cchange_tracker_or64(uint64_t *word, uint64_t bits) {
  return __atomic_fetch_or(word, bits, __ATOMIC_SEQ_CST);
}

#endif
