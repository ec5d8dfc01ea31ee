#include "layer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

// Calls through a descriptor: what is read, written, cut off, punched and made durable.

DECLARE_REAL(read);
DECLARE_REAL(pread);
DECLARE_REAL(write);
DECLARE_REAL(pwrite);
DECLARE_REAL(fsync);
DECLARE_REAL(fdatasync);
DECLARE_REAL(syncfs);
DECLARE_REAL(ftruncate);
DECLARE_REAL(fallocate);
DECLARE_REAL(copy_file_range);
DECLARE_REAL(sync_file_range);
DECLARE_REAL(flock);
DECLARE_REAL(close);

// A call on a descriptor while the layer is asked for anything.
struct call {
  char path[PATH_MAX];
  int is_seen;
  struct layer_verdict verdict;
};

static int begin(struct call *call, uint32_t kind, int descriptor) {
  layer_count(kind);
  call->verdict = (struct layer_verdict){.limit = -1};
  call->is_seen = layer_is_active && !layer_is_inside && layer_path_of(descriptor, call->path);
  if (!call->is_seen) return 1;
  call->verdict = layer_ask(kind, call->path);
  if (!call->verdict.error || call->verdict.carried_out) return 1;
  errno = call->verdict.error;
  return 0;
}

static int is_recorded(const struct call *call) { return call->is_seen && layer_recorded(call->path) != NULL; }

// What the caller is told: the result, or a failure although it was carried out.
static ssize_t told(const struct call *call, ssize_t result) {
  if (!call->verdict.error) return result;
  errno = call->verdict.error;
  return -1;
}

static size_t limited(const struct call *call, size_t count) {
  int64_t limit = call->verdict.limit;
  return limit > 0 && (size_t)limit < count ? (size_t)limit : count;
}

ssize_t read(int descriptor, void *buffer, size_t count) {
  struct call call;
  if (!begin(&call, FAULTLAYER_READ, descriptor)) return -1;
  return told(&call, REAL(read)(descriptor, buffer, limited(&call, count)));
}

ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
  struct call call;
  if (!begin(&call, FAULTLAYER_READ, descriptor)) return -1;
  return told(&call, REAL(pread)(descriptor, buffer, limited(&call, count), offset));
}

// Bytes of a range that lie beyond the end of the file or in its holes.
static int64_t growth(int descriptor, off_t offset, size_t count) {
  struct stat facts;
  if (fstat(descriptor, &facts) != 0 || !S_ISREG(facts.st_mode)) return 0;
  off_t end = offset + (off_t)count;
  int64_t bytes = end > facts.st_size ? end - (offset > facts.st_size ? offset : facts.st_size) : 0;
  off_t inside = end < facts.st_size ? end : facts.st_size;
  off_t position = lseek(descriptor, 0, SEEK_CUR);
  for (off_t at = offset; at < inside;) {
    off_t data = lseek(descriptor, at, SEEK_DATA);
    if (data < 0 || data > inside) data = inside;
    bytes += data - at;
    if (data >= inside) break;
    off_t hole = lseek(descriptor, data, SEEK_HOLE);
    at = hole < 0 || hole > inside ? inside : hole;
  }
  lseek(descriptor, position, SEEK_SET);
  return bytes;
}

// How much of a write fits; -1 with ENOSPC when nothing does.
static ssize_t fitting(const struct call *call, int descriptor, size_t count, off_t offset) {
  if (!call->is_seen || count == 0 || !layer_has_space_limit()) return (ssize_t)count;
  int64_t wanted = growth(descriptor, offset, count);
  int64_t taken = layer_take_space(call->path, wanted);
  if (taken == wanted) return (ssize_t)count;
  ssize_t rest = (ssize_t)count - (wanted - taken);
  if (rest > 0) return rest;
  layer_give_back_space(taken);
  errno = ENOSPC;
  return -1;
}

static ssize_t write_bytes(int descriptor, const void *buffer, size_t count, off_t offset, int is_positional) {
  struct call call;
  if (!begin(&call, FAULTLAYER_WRITE, descriptor)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  if (call.is_seen && !is_positional) {
    int flags = fcntl(descriptor, F_GETFL);
    struct stat facts;
    offset = lseek(descriptor, 0, SEEK_CUR);
    if (flags >= 0 && (flags & O_APPEND) && fstat(descriptor, &facts) == 0) offset = facts.st_size;
  }
  ssize_t result = fitting(&call, descriptor, limited(&call, count), offset);
  if (result >= 0)
    result = is_positional ? REAL(pwrite)(descriptor, buffer, (size_t)result, offset)
                           : REAL(write)(descriptor, buffer, (size_t)result);
  if (call.verdict.exits) _exit(137);
  uint64_t object = is_kept && result > 0 ? layer_object(descriptor, 0, NULL) : 0;
  if (object)
    layer_append((struct layer_entry){
        .kind = FAULTLAYER_OP_WRITE, .object = object, .offset = offset, .length = result, .bytes = buffer});
  if (is_kept) {
    int kept = errno;
    layer_recorder_end();
    errno = kept;
  }
  return told(&call, result);
}

ssize_t write(int descriptor, const void *buffer, size_t count) {
  return write_bytes(descriptor, buffer, count, 0, 0);
}

ssize_t pwrite(int descriptor, const void *buffer, size_t count, off_t offset) {
  return write_bytes(descriptor, buffer, count, offset, 1);
}

// Carries out a call that has no data, and writes it down when it succeeded.
#define RECORDED(call, result, invocation, ...)                                   \
  do {                                                                            \
    int is_kept = is_recorded(&(call));                                           \
    if (is_kept) layer_recorder_begin();                                          \
    result = invocation;                                                          \
    uint64_t object = is_kept && result == 0 ? layer_object(descriptor, 0, NULL) : 0; \
    if (object) layer_append((struct layer_entry){.object = object, __VA_ARGS__}); \
    if (is_kept) {                                                                \
      int kept = errno;                                                           \
      layer_recorder_end();                                                       \
      errno = kept;                                                               \
    }                                                                             \
  } while (0)

static int synchronize(int descriptor, int is_data) {
  struct call call;
  if (!begin(&call, FAULTLAYER_SYNC, descriptor)) return -1;
  struct stat facts;
  int is_folder = is_recorded(&call) && fstat(descriptor, &facts) == 0 && S_ISDIR(facts.st_mode);
  int result;
  if (is_folder) {
    layer_recorder_begin();
    result = is_data ? REAL(fdatasync)(descriptor) : REAL(fsync)(descriptor);
    if (result == 0)
      layer_append((struct layer_entry){.kind = FAULTLAYER_OP_SYNC_FOLDER, .path = layer_recorded(call.path)});
    layer_recorder_end();
  } else {
    RECORDED(call, result, is_data ? REAL(fdatasync)(descriptor) : REAL(fsync)(descriptor),
             .kind = FAULTLAYER_OP_SYNC);
  }
  return (int)told(&call, result);
}

int fsync(int descriptor) { return synchronize(descriptor, 0); }
int fdatasync(int descriptor) { return synchronize(descriptor, 1); }

int syncfs(int descriptor) {
  struct call call;
  if (!begin(&call, FAULTLAYER_SYNC, descriptor)) return -1;
  int result = REAL(syncfs)(descriptor);
  if (result == 0 && is_recorded(&call)) {
    layer_recorder_begin();
    layer_append((struct layer_entry){.kind = FAULTLAYER_OP_SYNC_ALL});
    layer_recorder_end();
  }
  return (int)told(&call, result);
}

int ftruncate(int descriptor, off_t size) {
  struct call call;
  if (!begin(&call, FAULTLAYER_TRUNCATE, descriptor)) return -1;
  int result;
  RECORDED(call, result, REAL(ftruncate)(descriptor, size), .kind = FAULTLAYER_OP_TRUNCATE, .length = size);
  return (int)told(&call, result);
}

static uint32_t kind_of(int mode) {
  if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) return FAULTLAYER_OP_PUNCH;
  if (mode == FALLOC_FL_ZERO_RANGE) return FAULTLAYER_OP_ZERO;
  if (mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)) return FAULTLAYER_OP_PUNCH;
  if (mode == 0) return FAULTLAYER_OP_ALLOCATE;
  return mode == FALLOC_FL_KEEP_SIZE ? FAULTLAYER_OP_MARK : FAULTLAYER_OP_UNKNOWN;
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  struct call call;
  if (!begin(&call, FAULTLAYER_ALLOCATE, descriptor)) return -1;
  if (!(mode & FALLOC_FL_PUNCH_HOLE) && fitting(&call, descriptor, (size_t)length, offset) < (ssize_t)length) {
    errno = ENOSPC;
    return -1;
  }
  int result;
  RECORDED(call, result, REAL(fallocate)(descriptor, mode, offset, length), .kind = kind_of(mode), .offset = offset,
           .length = length, .path = "fallocate");
  return (int)told(&call, result);
}

ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t count, unsigned flags) {
  struct call call;
  if (!begin(&call, FAULTLAYER_COPY, to)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  off_t start = to_offset ? *to_offset : lseek(to, 0, SEEK_CUR);
  ssize_t result = fitting(&call, to, limited(&call, count), start);
  if (result >= 0) result = REAL(copy_file_range)(from, from_offset, to, to_offset, (size_t)result, flags);
  if (is_kept && result > 0) {
    void *bytes = malloc((size_t)result);
    uint64_t object = layer_object(to, 0, NULL);
    // A file that is open for writing alone can't be read through it.
    char link[PATH_MAX];
    int reader = layer_path_of(to, link) ? openat(AT_FDCWD, link, O_RDONLY | O_CLOEXEC) : -1;
    int is_read = bytes && reader >= 0 && REAL(pread)(reader, bytes, (size_t)result, start) == result;
    layer_append((struct layer_entry){.kind = is_read ? FAULTLAYER_OP_WRITE : FAULTLAYER_OP_UNKNOWN,
                                      .object = object, .offset = start, .length = result,
                                      .bytes = is_read ? bytes : NULL, .path = is_read ? "" : "copy_file_range"});
    if (reader >= 0) REAL(close)(reader);
    free(bytes);
  }
  if (is_kept) {
    int kept = errno;
    layer_recorder_end();
    errno = kept;
  }
  return told(&call, result);
}

int sync_file_range(int descriptor, off64_t offset, off64_t length, unsigned flags) {
  struct call call;
  if (!begin(&call, FAULTLAYER_RANGE_SYNC, descriptor)) return -1;
  return (int)told(&call, REAL(sync_file_range)(descriptor, offset, length, flags));
}

int flock(int descriptor, int operation) {
  struct call call;
  if (!begin(&call, FAULTLAYER_LOCK, descriptor)) return -1;
  return (int)told(&call, REAL(flock)(descriptor, operation));
}

int close(int descriptor) {
  struct call call;
  // The descriptor is gone whatever the answer is.
  int passes = begin(&call, FAULTLAYER_CLOSE, descriptor);
  int reason = errno;
  layer_forget_descriptor(descriptor);
  int result = REAL(close)(descriptor);
  if (passes) return (int)told(&call, result);
  errno = reason;
  return -1;
}

#define ALIAS(name) __attribute__((alias(#name)))
ssize_t pread64(int, void *, size_t, off64_t) ALIAS(pread);
ssize_t pwrite64(int, const void *, size_t, off64_t) ALIAS(pwrite);
int ftruncate64(int, off64_t) ALIAS(ftruncate);
int fallocate64(int, int, off64_t, off64_t) ALIAS(fallocate);
