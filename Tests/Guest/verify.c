// Whether files that writer.c wrote show one instant.
//
// Usage: verify FILE...      in the order in which they were written
//
// Prints one line: the last record of each file, the records that are damaged, and those that are missing.
// Exit status: 0 one instant, 1 not, 2 a file can't be read or has no record.

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "records.h"

struct found {
    uint64_t last;
    int damaged, missing;
};

static int examine(const char *path, struct found *found) {
    static uint64_t numbers[SLOTS];
    static struct record record;
    static const struct record empty;
    int file = open(path, O_RDONLY);
    if (file < 0) {
        perror(path);
        return 0;
    }
    memset(numbers, 0, sizeof numbers);
    for (uint64_t slot = 0; slot < SLOTS; slot++) {
        if (pread(file, &record, sizeof record, (off_t)(slot * sizeof record)) != sizeof record) break;
        if (memcmp(&record, &empty, sizeof record) == 0) continue;
        if (!is_whole(&record, slot)) {
            found->damaged++;
            continue;
        }
        numbers[slot] = record.number;
        if (record.number > found->last) found->last = record.number;
    }
    close(file);
    uint64_t first = found->last > SLOTS ? found->last - SLOTS + 1 : 1;
    for (uint64_t number = first; number <= found->last; number++) {
        if (numbers[slot_of(number)] != number) found->missing++;
    }
    return 1;
}

int main(int count, char **words) {
    struct found found[MAX_FILES] = {0};
    int files = count - 1, damaged = 0, missing = 0, in_order = 1;
    if (files < 1 || files > MAX_FILES) return 2;
    for (int file = 0; file < files; file++) {
        if (!examine(words[file + 1], &found[file])) return 2;
        damaged += found[file].damaged, missing += found[file].missing;
        printf("%llu ", (unsigned long long)found[file].last);
        if (file > 0 && found[file].last > found[file - 1].last) in_order = 0;
    }
    if (found[0].last > found[files - 1].last + 1) in_order = 0;
    printf("damaged %d missing %d\n", damaged, missing);
    if (found[0].last == 0) return 2;
    return damaged == 0 && missing == 0 && in_order ? 0 : 1;
}
