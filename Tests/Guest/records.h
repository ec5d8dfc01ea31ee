// Numbered records that writer.c writes to several disks in turn, and that verify.c looks for.
//
// Record n lies at slot (n * STRIDE) % SLOTS of a file, so that neighbours in time are far apart on the disk,
// and each place is overwritten after SLOTS records.
#ifndef RECORDS_H
#define RECORDS_H

#include <stdint.h>

enum { SLOTS = 8192, STRIDE = 7919, WORDS = 509, MAX_FILES = 8 };

#define RECORD_MAGIC UINT64_C(0x315244524f434552)  // "RECORDR1"

struct record {
    uint64_t magic, number, sum, words[WORDS];
};

_Static_assert(sizeof(struct record) == 4096, "a record is a page");

static inline uint64_t slot_of(uint64_t number) { return number * STRIDE % SLOTS; }

// FNV-1a over the words, with the number.
static inline uint64_t sum_of(const struct record *record) {
    uint64_t sum = UINT64_C(1469598103934665603);
    for (int index = 0; index < WORDS; index++) {
        sum = (sum ^ record->words[index]) * UINT64_C(1099511628211);
    }
    return sum ^ record->number;
}

static inline int is_whole(const struct record *record, uint64_t slot) {
    return record->magic == RECORD_MAGIC && slot_of(record->number) == slot
           && record->sum == sum_of(record);
}

#endif
