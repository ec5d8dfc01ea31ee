// What Swift cannot see of Linux: ioctls, macros and flags behind _GNU_SOURCE, and the dispatching XXH3.
// Every function returns what the system call returns; -1 leaves the reason in errno.
#ifndef STROBE_CLINUX_H
#define STROBE_CLINUX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Flags for open(2) that Glibc's module hides.
extern const int clinux_O_DIRECT;
extern const int clinux_O_TMPFILE;

// Geometry of a block device (ioctl_blk): bytes, bytes, bytes, 0/1.
int clinux_block_size64(int descriptor, uint64_t *bytes);
int clinux_block_logical_sector(int descriptor, int *bytes);
int clinux_block_physical_sector(int descriptor, unsigned *bytes);
int clinux_block_read_only(int descriptor, int *flag);
// BLKZEROOUT: the range reads as zeros afterwards. Offset and length in bytes, multiples of the sector.
int clinux_block_zero_out(int descriptor, uint64_t offset, uint64_t length);
// BLKFLSBUF: write back and drop the device's page cache.
int clinux_block_flush_buffers(int descriptor);

// fallocate(2) FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; on a block device zeros are guaranteed.
int clinux_punch_hole(int descriptor, uint64_t offset, uint64_t length);
// sync_file_range(2) SYNC_FILE_RANGE_WRITE: starts writing back, does not wait.
int clinux_start_writeback(int descriptor, uint64_t offset, uint64_t length);
// sync_file_range(2) SYNC_FILE_RANGE_WAIT_BEFORE over the whole file: EIO when a page could not be written.
int clinux_wait_for_writeback(int descriptor);
// renameat2(2) RENAME_NOREPLACE.
int clinux_rename_new(const char *from, const char *to);
// lseek(2) SEEK_DATA and SEEK_HOLE.
int64_t clinux_seek_data(int descriptor, int64_t offset);
int64_t clinux_seek_hole(int descriptor, int64_t offset);
// ioctl_ficlonerange(2): `copy` shares the blocks of `original`, all of them or the first 4,096 bytes.
int clinux_clone_file(int copy, int original);
int clinux_clone_first_block(int copy, int original);
// Whether anybody has the file open for writing, or mapped so (fcntl(2) F_SETLEASE): 1, 0, -1 where it can't
// be told.
int clinux_is_open_for_writing(int descriptor);
// flock(2), never waiting.
int clinux_try_lock(int descriptor, int exclusive);

// What statx(2) says of a file that stat(2) does not, and of a device number its two halves.
struct clinux_file_facts {
  uint64_t device_major, device_minor;    // of the file system that holds it
  uint64_t special_major, special_minor;  // of the device that it is
  uint64_t inode, size, blocks512, links;
  uint32_t mode, owner, group;
  int64_t birth_seconds;  // 0 when unknown
  uint32_t birth_nanoseconds;
  int64_t modified_seconds, changed_seconds;
  uint32_t modified_nanoseconds, changed_nanoseconds;
  uint32_t direct_memory_alignment, direct_offset_alignment;  // 0 when unknown
};
int clinux_file_facts(int descriptor, const char *path, struct clinux_file_facts *facts);

// What a loop device is made of (LOOP_GET_STATUS64): the backing file and the window on it, in bytes.
struct clinux_loop_facts {
  uint64_t backing_major, backing_minor, backing_inode;  // of the file's file system, and the file
  uint64_t special_major, special_minor;                 // when it is a block device itself
  uint64_t offset, size_limit;
};
int clinux_loop_facts(int descriptor, struct clinux_loop_facts *facts);

// XXH3-128 keyed with a secret of at least 136 bytes, on the widest vectors that the processor has.
struct clinux_hash128 {
  uint64_t low, high;
};
struct clinux_hash128 clinux_xxh3_128(const void *bytes, size_t count, const void *secret, size_t secret_count);
uint64_t clinux_xxh3_64(const void *bytes, size_t count);

// SHA-256 of `key` and then `bytes`; -1 when libcrypto has none, or no memory.
int clinux_sha256(const void *key, size_t key_count, const void *bytes, size_t count, unsigned char digest[32]);
// Does what the first call would have to do. -1 when libcrypto has no SHA-256.
int clinux_sha256_prepare(void);

// Whether all bytes are zero. Compares the buffer with itself, shifted: memcmp runs at memory speed.
int clinux_is_zero(const void *bytes, size_t count);

// SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process; SIGPIPE is ignored.
void clinux_remember_termination_signals(void);
int clinux_termination_signal(void);  // 0 when none came
void clinux_end_by_signal(int signal);

// ioctl_fs(2): FIFREEZE and FITHAW. -1 with EBUSY: frozen already; EINVAL: not frozen; EOPNOTSUPP.
int clinux_freeze(int descriptor);
int clinux_thaw(int descriptor);
int clinux_syncfs(int descriptor);
// mlockall(2) MCL_CURRENT | MCL_FUTURE.
int clinux_lock_memory(void);
// BTRFS_IOC_FS_INFO: the id under which /sys/fs/btrfs lists the file system's devices.
int clinux_btrfs_id(int descriptor, unsigned char id[16]);

// Starts a program (posix_spawn) in `/`, without signals blocked or ignored, in a session or else a process
// group of its own. Descriptor numbers 0 to count - 1 become `descriptors`, which must all be >= count;
// every other one is closed. Returns an errno, not -1.
int clinux_spawn(pid_t *process, const char *program, char *const arguments[], char *const environment[],
                 const int descriptors[], int count, int new_session);
// pipe2(2) and socketpair(2), O_CLOEXEC; the sockets are SOCK_SEQPACKET.
int clinux_pipe(int ends[2]);
int clinux_socket_pair(int ends[2]);
// pidfd_open(2) and pidfd_send_signal(2): never another process that got the number since.
int clinux_process_descriptor(pid_t process);
int clinux_process_signal(int process_descriptor, int signal);
// Every signal that doesn't mean a fault of the program itself, a child's end, or can't be.
void clinux_ignore_signals(void);
// memfd_create(2) MFD_CLOEXEC: a file in memory without a name.
int clinux_memory_file(const char *name);
extern const int clinux_O_PATH;

int clinux_terminal_columns(int descriptor);  // 0 when it is no terminal

#endif
