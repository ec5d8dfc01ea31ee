#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Calls that take a path: what is opened, named, renamed and removed.

DECLARE_REAL(openat);
DECLARE_REAL(renameat2);
DECLARE_REAL(linkat);
DECLARE_REAL(unlinkat);
DECLARE_REAL(mkdirat);
DECLARE_REAL(opendir);
DECLARE_REAL(statx);
DECLARE_REAL(truncate);
DECLARE_REAL(close);

static int fails(struct layer_verdict verdict) {
  if (!verdict.error) return 0;
  errno = verdict.error;
  return 1;
}

static int fails_before(struct layer_verdict verdict) { return !verdict.carried_out && fails(verdict); }

static void append(uint32_t kind, uint64_t object, const char *path, const char *other) {
  layer_append((struct layer_entry){.kind = kind, .object = object, .path = path, .other = other});
}

static void end_keeping_errno(void) {
  int kept = errno;
  layer_recorder_end();
  errno = kept;
}

static int is_there(const char *path) {
  struct stat facts;
  int kept = errno;
  int result = lstat(path, &facts) == 0;
  errno = kept;
  return result;
}

// ---------------------------------------------------------------- opening

static int open_recorded(int folder, const char *path, int flags, mode_t mode, const char *absolute) {
  const char *name = layer_recorded(absolute);
  layer_recorder_begin();
  int is_unnamed = (flags & O_TMPFILE) == O_TMPFILE;
  int is_new = !is_unnamed && (flags & O_CREAT) && !is_there(absolute);
  struct stat before;
  int has_content = (flags & O_TRUNC) && stat(absolute, &before) == 0 && before.st_size > 0;
  int descriptor = REAL(openat)(folder, path, flags, mode);
  if (descriptor >= 0) {
    layer_forget_descriptor(descriptor);
    uint64_t object = layer_object(descriptor, is_unnamed || is_new, name);
    if (object && is_unnamed) append(FAULTLAYER_OP_UNNAMED, object, name, NULL);
    if (object && is_new) append(FAULTLAYER_OP_CREATE, object, name, NULL);
    if (object && !is_new && has_content) append(FAULTLAYER_OP_TRUNCATE, object, name, NULL);
  }
  end_keeping_errno();
  return descriptor;
}

static int open_file(int folder, const char *path, int flags, mode_t mode) {
  char absolute[PATH_MAX];
  int is_seen = layer_is_active && !layer_is_inside && layer_absolute(folder, path, absolute);
  int is_unnamed = (flags & O_TMPFILE) == O_TMPFILE;
  int makes = is_unnamed || ((flags & O_CREAT) && is_seen && !is_there(absolute));
  uint32_t kind = makes ? FAULTLAYER_CREATE : FAULTLAYER_OPEN;
  layer_count(kind);
  if (!is_seen) {
    int descriptor = REAL(openat)(folder, path, flags, mode);
    layer_forget_descriptor(descriptor);
    return descriptor;
  }
  struct layer_verdict verdict = layer_ask(kind, absolute);
  if (fails_before(verdict)) return -1;
  int descriptor = layer_recorded(absolute) ? open_recorded(folder, path, flags, mode, absolute)
                                            : REAL(openat)(folder, path, flags, mode);
  if (!verdict.error) return descriptor;
  if (descriptor >= 0) REAL(close)(descriptor);
  errno = verdict.error;
  return -1;
}

#define MODE_OF(flags, list)                              \
  mode_t mode = 0;                                        \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                  \
    va_list list;                                         \
    va_start(list, flags);                                \
    mode = va_arg(list, mode_t);                          \
    va_end(list);                                         \
  }

int open(const char *path, int flags, ...) {
  MODE_OF(flags, list)
  return open_file(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
  MODE_OF(flags, list)
  return open_file(folder, path, flags, mode);
}

int creat(const char *path, mode_t mode) { return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int open64(const char *, int, ...) __attribute__((alias("open")));
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));
int creat64(const char *, mode_t) __attribute__((alias("creat")));

// ---------------------------------------------------------------- names

// A call with a path, or with two.
struct named {
  char path[PATH_MAX], other[PATH_MAX];
  int is_seen;
  struct layer_verdict verdict;
};

static int begin(struct named *call, uint32_t kind, int folder, const char *path, int other_folder,
                 const char *other) {
  layer_count(kind);
  call->verdict = (struct layer_verdict){.limit = -1};
  call->other[0] = 0;
  call->is_seen = layer_is_active && !layer_is_inside && layer_absolute(folder, path, call->path) &&
                  (!other || layer_absolute(other_folder, other, call->other));
  if (!call->is_seen) return 1;
  // A fault may be meant for either name.
  call->verdict = layer_ask(kind, other ? call->other : call->path);
  if (other && !call->verdict.error && !layer_recorded(call->other)) call->verdict = layer_ask(kind, call->path);
  return !fails_before(call->verdict);
}

static int is_recorded(const struct named *call) {
  return call->is_seen && (layer_recorded(call->path) || (call->other[0] && layer_recorded(call->other)));
}

static int is_same_file(const char *left, const char *right) {
  struct stat first, second;
  return lstat(left, &first) == 0 && lstat(right, &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

static int rename_file(int folder, const char *path, int other_folder, const char *other, unsigned flags) {
  struct named call;
  if (!begin(&call, FAULTLAYER_RENAME, folder, path, other_folder, other)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  // Two names of one file: nothing happens. See rename(2).
  int is_same = is_kept && is_same_file(call.path, call.other);
  int result = REAL(renameat2)(folder, path, other_folder, other, flags);
  if (is_kept && result == 0 && !is_same) {
    const char *from = layer_recorded(call.path), *to = layer_recorded(call.other);
    uint32_t kind = flags & RENAME_EXCHANGE ? FAULTLAYER_OP_EXCHANGE : FAULTLAYER_OP_RENAME;
    if (from && to)
      append(kind, 0, from, to);
    else
      append(FAULTLAYER_OP_UNKNOWN, 0, "rename into or out of the folder", to);
  }
  if (is_kept) end_keeping_errno();
  return fails(call.verdict) ? -1 : result;
}

int rename(const char *path, const char *other) { return rename_file(AT_FDCWD, path, AT_FDCWD, other, 0); }

int renameat(int folder, const char *path, int other_folder, const char *other) {
  return rename_file(folder, path, other_folder, other, 0);
}

int renameat2(int folder, const char *path, int other_folder, const char *other, unsigned flags) {
  return rename_file(folder, path, other_folder, other, flags);
}

int linkat(int folder, const char *path, int other_folder, const char *other, int flags) {
  struct named call;
  if (!begin(&call, FAULTLAYER_LINK, folder, path, other_folder, other)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  int result = REAL(linkat)(folder, path, other_folder, other, flags);
  if (is_kept && result == 0) {
    const char *to = layer_recorded(call.other);
    uint64_t object = layer_object_at(call.other, 0);
    append(to && object ? FAULTLAYER_OP_LINK : FAULTLAYER_OP_UNKNOWN, object, layer_recorded(call.path),
           to ? to : "link out of the folder");
  }
  if (is_kept) end_keeping_errno();
  return fails(call.verdict) ? -1 : result;
}

int link(const char *path, const char *other) { return linkat(AT_FDCWD, path, AT_FDCWD, other, 0); }

int unlinkat(int folder, const char *path, int flags) {
  struct named call;
  if (!begin(&call, FAULTLAYER_UNLINK, folder, path, AT_FDCWD, NULL)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  int result = REAL(unlinkat)(folder, path, flags);
  if (is_kept && result == 0)
    append(flags & AT_REMOVEDIR ? FAULTLAYER_OP_RMDIR : FAULTLAYER_OP_UNLINK, 0, layer_recorded(call.path), NULL);
  if (is_kept) end_keeping_errno();
  return fails(call.verdict) ? -1 : result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
  struct named call;
  if (!begin(&call, FAULTLAYER_MKDIR, folder, path, AT_FDCWD, NULL)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  int result = REAL(mkdirat)(folder, path, mode);
  if (is_kept && result == 0) append(FAULTLAYER_OP_MKDIR, 0, layer_recorded(call.path), NULL);
  if (is_kept) end_keeping_errno();
  return fails(call.verdict) ? -1 : result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int truncate(const char *path, off_t size) {
  struct named call;
  if (!begin(&call, FAULTLAYER_TRUNCATE, AT_FDCWD, path, AT_FDCWD, NULL)) return -1;
  int is_kept = is_recorded(&call);
  if (is_kept) layer_recorder_begin();
  int result = REAL(truncate)(path, size);
  uint64_t object = is_kept && result == 0 ? layer_object_at(call.path, 1) : 0;
  if (object)
    layer_append((struct layer_entry){.kind = FAULTLAYER_OP_TRUNCATE, .object = object, .length = size});
  if (is_kept) end_keeping_errno();
  return fails(call.verdict) ? -1 : result;
}

DIR *opendir(const char *path) {
  struct named call;
  if (!begin(&call, FAULTLAYER_LIST, AT_FDCWD, path, AT_FDCWD, NULL) || fails(call.verdict)) return NULL;
  return REAL(opendir)(path);
}

int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict facts) {
  struct named call;
  char own[PATH_MAX];
  const char *asked = path;
  // The file behind a descriptor: AT_EMPTY_PATH.
  if (path[0] == 0) asked = layer_is_active && layer_path_of(folder, own) ? own : NULL;
  if (!begin(&call, FAULTLAYER_STAT, folder, asked, AT_FDCWD, NULL) || fails(call.verdict)) return -1;
  return REAL(statx)(folder, path, flags, mask, facts);
}
