#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

const int clinux_O_DIRECT = O_DIRECT;
const int clinux_O_TMPFILE = O_TMPFILE;

int clinux_punch_hole(int descriptor, uint64_t offset, uint64_t length) {
  return fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
}

int clinux_start_writeback(int descriptor, uint64_t offset, uint64_t length) {
  return sync_file_range(descriptor, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE);
}

int clinux_wait_for_writeback(int descriptor) {
  return sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE);
}

int clinux_rename_new(const char *from, const char *to) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

int64_t clinux_seek_data(int descriptor, int64_t offset) { return lseek(descriptor, offset, SEEK_DATA); }
int64_t clinux_seek_hole(int descriptor, int64_t offset) { return lseek(descriptor, offset, SEEK_HOLE); }

int clinux_is_open_for_writing(int descriptor) {
  // Somebody who opens it in this moment breaks the lease. The signal for that is SIGIO, which kills; SIGURG is
  // ignored unless somebody wants it.
  if (fcntl(descriptor, F_SETSIG, SIGURG) != 0) return -1;
  if (fcntl(descriptor, F_SETLEASE, F_RDLCK) == 0) {
    fcntl(descriptor, F_SETLEASE, F_UNLCK);
    return 0;
  }
  return errno == EAGAIN ? 1 : -1;
}

int clinux_try_lock(int descriptor, int exclusive) {
  int result;
  // It never waits, so that it also can't be a signal that ends a wait: a file system of a network may still say so.
  do result = flock(descriptor, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
  while (result != 0 && errno == EINTR);
  return result;
}

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

int clinux_file_facts(int descriptor, const char *path, struct clinux_file_facts *facts) {
  struct statx found;
  memset(&found, 0, sizeof found);
  int flags = path == NULL ? AT_EMPTY_PATH : 0;
  if (statx(path == NULL ? descriptor : AT_FDCWD, path == NULL ? "" : path, flags,
            STATX_BASIC_STATS | STATX_BTIME | STATX_DIOALIGN, &found) != 0)
    return -1;
  memset(facts, 0, sizeof *facts);
  facts->device_major = found.stx_dev_major;
  facts->device_minor = found.stx_dev_minor;
  facts->special_major = found.stx_rdev_major;
  facts->special_minor = found.stx_rdev_minor;
  facts->inode = found.stx_ino;
  facts->size = found.stx_size;
  facts->blocks512 = found.stx_blocks;
  facts->links = found.stx_nlink;
  facts->mode = found.stx_mode;
  facts->owner = found.stx_uid;
  facts->group = found.stx_gid;
  if (found.stx_mask & STATX_BTIME) {
    facts->birth_seconds = found.stx_btime.tv_sec;
    facts->birth_nanoseconds = found.stx_btime.tv_nsec;
  }
  facts->modified_seconds = found.stx_mtime.tv_sec;
  facts->modified_nanoseconds = found.stx_mtime.tv_nsec;
  facts->changed_seconds = found.stx_ctime.tv_sec;
  facts->changed_nanoseconds = found.stx_ctime.tv_nsec;
  if (found.stx_mask & STATX_DIOALIGN) {
    // Debian 12's <sys/stat.h> has the fields among the spares: linux/stat.h names them.
    const uint32_t *spare = (const uint32_t *)((const char *)&found + 0x98);
    facts->direct_memory_alignment = spare[0];
    facts->direct_offset_alignment = spare[1];
  }
  return 0;
}

int clinux_terminal_columns(int descriptor) {
  struct winsize size;
  if (!isatty(descriptor)) return 0;
  if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

int clinux_clone_file(int copy, int original) { return ioctl(copy, FICLONE, original); }

int clinux_clone_first_block(int copy, int original) {
  struct file_clone_range range = {.src_fd = original, .src_length = 4096};
  return ioctl(copy, FICLONERANGE, &range);
}
