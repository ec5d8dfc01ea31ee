// A layer between a test program and the C library, for the files below chosen folders: it makes calls fail, fills
// disks, moves the clock, makes random bytes repeatable, and records what reaches the file system.
//
// An executable that links this target defines open(2), pwrite(2), fsync(2) and the others itself; all code of the
// executable, and the shared libraries that it loads, call these. Each goes on to the C library's own. Nothing is
// changed or recorded until one of the functions below asks for it. All functions may be called from any thread.
//
// Not seen: writes through mmap(2), libaio, io_uring and sendfile(2), and what the C library does internally.
#ifndef STROBE_FAULTLAYER_H
#define STROBE_FAULTLAYER_H

#include <stdint.h>
#include <sys/types.h>

// ---------------------------------------------------------------- calls that fail

// Kinds of calls, to be added up.
enum {
  FAULTLAYER_OPEN = 1 << 0,       // open and its like without making a file
  FAULTLAYER_CREATE = 1 << 1,     // open and its like that may make a file, O_TMPFILE
  FAULTLAYER_READ = 1 << 2,       // read, pread
  FAULTLAYER_WRITE = 1 << 3,      // write, pwrite
  FAULTLAYER_SYNC = 1 << 4,       // fsync, fdatasync, of files and directories; syncfs
  FAULTLAYER_TRUNCATE = 1 << 5,   // ftruncate
  FAULTLAYER_ALLOCATE = 1 << 6,   // fallocate, any mode: punching too
  FAULTLAYER_RENAME = 1 << 7,     // rename, renameat, renameat2
  FAULTLAYER_LINK = 1 << 8,       // link, linkat
  FAULTLAYER_UNLINK = 1 << 9,     // unlink, unlinkat, rmdir
  FAULTLAYER_MKDIR = 1 << 10,     // mkdir, mkdirat
  FAULTLAYER_LOCK = 1 << 11,      // flock
  FAULTLAYER_LIST = 1 << 12,      // opendir
  FAULTLAYER_STAT = 1 << 13,      // statx
  FAULTLAYER_COPY = 1 << 14,      // copy_file_range
  FAULTLAYER_RANGE_SYNC = 1 << 15,  // sync_file_range
  FAULTLAYER_CLOSE = 1 << 16,     // close: the descriptor is closed all the same
  FAULTLAYER_AIO = 1 << 17,       // io_getevents of libaio: the request is carried out, its result says that it failed
  FAULTLAYER_EVERYTHING = (1 << 18) - 1,
  // Classes of them.
  FAULTLAYER_NAMES = FAULTLAYER_CREATE | FAULTLAYER_RENAME | FAULTLAYER_LINK | FAULTLAYER_UNLINK | FAULTLAYER_MKDIR,
  FAULTLAYER_EFFECTS = FAULTLAYER_NAMES | FAULTLAYER_WRITE | FAULTLAYER_SYNC | FAULTLAYER_TRUNCATE |
                       FAULTLAYER_ALLOCATE | FAULTLAYER_COPY,
};

// What a fault does.
enum {
  FAULTLAYER_FAIL = 0,  // the call fails, or moves less
  FAULTLAYER_EXIT,      // _exit(137) instead of the call; of a write `short_bytes` are written before
  FAULTLAYER_STOP,      // raise(SIGSTOP) before the call, which is carried out when the process goes on
};

// What fails: of the calls of these kinds on paths that are `prefix` or below it and contain `part` (NULL: any), the
// `first`th (1: the next) and the `count` - 1 after it (0: all after it).
struct faultlayer_fault {
  uint32_t calls;
  const char *prefix, *part;
  uint64_t first, count;
  // errno; 0: a read or write moves only `short_bytes` instead (at least 1, less than asked for); both 0: nothing
  // happens, the calls are counted.
  int error;
  int64_t short_bytes;
  int action;
  // The call is carried out before it is said to have failed: an fsync whose answer is lost, a rename that took place.
  int carried_out;
};

// Adds a fault, at most 64; the strings are copied. Returns its number, -1 when there are too many.
int faultlayer_add_fault(const struct faultlayer_fault *fault);
// How many calls it looked at, and how many it made fail.
uint64_t faultlayer_calls_seen(int fault);
uint64_t faultlayer_calls_failed(int fault);
// Counts from 0 again.
void faultlayer_restart_fault(int fault);
// Removes all faults, the full disk and the hook.
void faultlayer_clear_faults(void);

// From now on writes below `prefix` may take `bytes` more of space; what doesn't fit is written in part, and then is
// ENOSPC, as are new files, folders and links. Space is counted in bytes beyond the end of a file and in its holes;
// what is removed gives none back. bytes < 0: no limit.
void faultlayer_set_space(const char *prefix, int64_t bytes);
int64_t faultlayer_space_left(void);  // -1: no limit

// Asked before each call below `prefix`, after the faults: 0 lets it pass, anything else is its errno. `path` is
// absolute. Runs on the thread that makes the call, without a lock held; its own calls are not looked at.
typedef int (*faultlayer_hook)(void *context, uint32_t call, const char *path);
void faultlayer_set_hook(const char *prefix, faultlayer_hook hook, void *context);

// ---------------------------------------------------------------- time and chance

// Adds nanoseconds to CLOCK_REALTIME, time(2) and gettimeofday(2); 0: none. CLOCK_MONOTONIC goes its way.
void faultlayer_set_clock_offset(int64_t nanoseconds);
// Holds CLOCK_REALTIME at this time since 1970; each question moves it on by `step` nanoseconds. at < 0: it runs again.
void faultlayer_hold_clock(int64_t at, int64_t step);
// getrandom(2), getentropy(3), and with them Swift's SystemRandomNumberGenerator, give what the seed says from here on.
// Repeatable where one thread asks.
void faultlayer_seed_random(uint64_t seed);
void faultlayer_real_random(void);
// usleep(3) and nanosleep(2) return at once.
void faultlayer_skip_sleeps(int is_on);
// getpid(2) says this; 0: the truth.
void faultlayer_set_process(int number);

// ---------------------------------------------------------------- the recorder

enum {
  FAULTLAYER_OP_KNOWN = 1,  // `object` is first met; `path` leads to it. Nothing happened to it yet.
  FAULTLAYER_OP_CREATE,     // `path` is a new, empty file: `object`
  FAULTLAYER_OP_UNNAMED,    // `object` is a new, empty file without a name (O_TMPFILE), in the folder `path`
  FAULTLAYER_OP_WRITE,      // `length` `bytes` at `offset` of `object`
  FAULTLAYER_OP_TRUNCATE,   // `object` has `length` bytes from now on
  FAULTLAYER_OP_PUNCH,      // `length` bytes at `offset` of `object` are zeros; its size stays
  FAULTLAYER_OP_ZERO,       // the same; `object` grows to offset + length
  FAULTLAYER_OP_ALLOCATE,   // `object` grows to offset + length with zeros
  FAULTLAYER_OP_SYNC,       // all before is durable of `object`: data and size (fsync, fdatasync)
  FAULTLAYER_OP_SYNC_FOLDER,  // all names of the folder `path` are durable
  FAULTLAYER_OP_SYNC_ALL,   // syncfs, sync: everything is durable
  FAULTLAYER_OP_RENAME,     // `path` became `other`, replacing what was there
  FAULTLAYER_OP_EXCHANGE,   // `path` and `other` changed places (RENAME_EXCHANGE)
  FAULTLAYER_OP_LINK,       // `other` is a new name of `object`
  FAULTLAYER_OP_UNLINK,     // `path` is gone
  FAULTLAYER_OP_MKDIR,
  FAULTLAYER_OP_RMDIR,
  FAULTLAYER_OP_MARK,       // `path` is a note of faultlayer_mark
  FAULTLAYER_OP_UNKNOWN,    // something that the recorder can't tell: `path` says what. Not to be ignored.
};

// Paths are relative to the recorder's prefix, without a slash before or after; the prefix itself is "".
struct faultlayer_op {
  uint64_t number;  // from 0, in the order in which they took effect
  uint32_t kind;
  int32_t thread;   // gettid(2)
  uint64_t object;  // names a file for as long as it lives, whatever its names; from 1
  int64_t offset, length;
  const char *path, *other;    // "" where there is none
  const unsigned char *bytes;  // of a write, else NULL
};

// Begins a new record of what happens below `prefix`, an absolute path without links. Only what took effect is
// recorded; calls below it are ordered one after another. Descriptors that are open already are followed as well.
void faultlayer_record(const char *prefix);
// Ends it; the record stays until the next begins.
void faultlayer_stop_recording(void);
uint64_t faultlayer_op_count(void);
// The op with that number; pointers hold until the next record begins. kind 0: there is none.
struct faultlayer_op faultlayer_op_at(uint64_t number);
// Puts a note into the record.
void faultlayer_mark(const char *note);

// How many calls of these kinds the layer has seen at all, wherever: to prove that it is linked in.
uint64_t faultlayer_calls_made(uint32_t calls);

#endif
