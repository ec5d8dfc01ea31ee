// Writes record n to the first file, flushes it, writes it to the second, flushes it, and so on; then n + 1.
// Whatever instant is cut out of this, no file is ahead of one before it, and the last is at most one behind.
//
// Usage: writer PAUSE-MICROSECONDS FILE...
//
// On SIGUSR1 it prints what it did since the last: seconds, records, the longest one in microseconds, and the
// number of the last record.

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "records.h"

static volatile sig_atomic_t is_asked;

static void ask(int number) {
    (void)number;
    is_asked = 1;
}

static uint64_t microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t last_number(int file) {
    static struct record record;
    uint64_t last = 0;
    for (uint64_t slot = 0; slot < SLOTS; slot++) {
        if (pread(file, &record, sizeof record, (off_t)(slot * sizeof record)) != sizeof record) continue;
        if (is_whole(&record, slot) && record.number > last) last = record.number;
    }
    return last;
}

static void write_record(int file, uint64_t number, uint64_t salt) {
    static struct record record;
    record.magic = RECORD_MAGIC;
    record.number = number;
    for (uint64_t index = 0; index < WORDS; index++) {
        record.words[index] =
            number * UINT64_C(6364136223846793005) + index * UINT64_C(1442695040888963407) + salt;
    }
    record.sum = sum_of(&record);
    off_t offset = (off_t)(slot_of(number) * sizeof record);
    if (pwrite(file, &record, sizeof record, offset) != sizeof record) fail("pwrite");
    if (fdatasync(file) != 0) fail("fdatasync");
}

int main(int count, char **words) {
    int files = count - 2, descriptors[MAX_FILES];
    if (files < 1 || files > MAX_FILES) {
        fputs("usage: writer PAUSE-MICROSECONDS FILE...\n", stderr);
        return 2;
    }
    for (int file = 0; file < files; file++) {
        descriptors[file] = open(words[file + 2], O_RDWR | O_CREAT, 0644);
        if (descriptors[file] < 0) fail(words[file + 2]);
    }
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    useconds_t pause = (useconds_t)atoi(words[1]);
    // One that was ended in the middle of a record begins with that again.
    uint64_t number = last_number(descriptors[files - 1]), from = number;
    uint64_t start = microseconds(), longest = 0;
    printf("writing from %llu\n", (unsigned long long)number + 1);
    fflush(stdout);
    for (;;) {
        number++;
        uint64_t begin = microseconds();
        for (int file = 0; file < files; file++) {
            write_record(descriptors[file], number, (uint64_t)file);
        }
        uint64_t now = microseconds();
        if (now - begin > longest) longest = now - begin;
        if (is_asked) {
            is_asked = 0;
            printf("mark %.6f %llu %llu %llu\n", (double)(now - start) / 1e6,
                   (unsigned long long)(number - from), (unsigned long long)longest,
                   (unsigned long long)number);
            fflush(stdout);
            start = now, from = number, longest = 0;
        }
        if (pause) usleep(pause);
    }
}
