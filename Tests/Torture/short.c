// Loaded into strobe by LD_PRELOAD (see faults.py): calls that read and write files and disks are interrupted, or
// do less than they were asked to, at places that STROBE_TORTURE_SEED chooses.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_uint_fast64_t calls;
static uint64_t seed;
static int (*real_getevents)(io_context_t, long, long, struct io_event *, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *text = getenv("STROBE_TORTURE_SEED");
  seed = text ? strtoull(text, NULL, 10) : 0;
  real_getevents = dlvsym(RTLD_NEXT, "io_getevents", "LIBAIO_0.4");
  if (!real_getevents) real_getevents = dlsym(RTLD_NEXT, "io_getevents");
}

// splitmix64
static uint64_t next(void) {
  uint64_t value = seed * 0x9e3779b97f4a7c15 + atomic_fetch_add(&calls, 1) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// How much of a call is done: -1 is an interruption. A direct transfer ends at a block.
static ssize_t allowed(int descriptor, size_t count) {
  struct stat facts;
  uint64_t chance = next();
  if (chance % 3 != 0 || count < 2 || fstat(descriptor, &facts) != 0) return count;
  if (!S_ISREG(facts.st_mode) && !S_ISBLK(facts.st_mode)) return count;
  if (chance / 3 % 4 == 0) return errno = EINTR, -1;
  size_t less = 1 + next() % (count - 1);
  if (fcntl(descriptor, F_GETFL) & O_DIRECT) less &= ~(size_t)4095;
  return less ? less : count;
}

ssize_t read(int descriptor, void *buffer, size_t count) {
  ssize_t part = allowed(descriptor, count);
  return part < 0 ? -1 : syscall(SYS_read, descriptor, buffer, part);
}

ssize_t write(int descriptor, const void *buffer, size_t count) {
  ssize_t part = allowed(descriptor, count);
  return part < 0 ? -1 : syscall(SYS_write, descriptor, buffer, part);
}

ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
  ssize_t part = allowed(descriptor, count);
  return part < 0 ? -1 : syscall(SYS_pread64, descriptor, buffer, part, offset);
}

ssize_t pwrite(int descriptor, const void *buffer, size_t count, off_t offset) {
  ssize_t part = allowed(descriptor, count);
  return part < 0 ? -1 : syscall(SYS_pwrite64, descriptor, buffer, part, offset);
}

ssize_t pread64(int descriptor, void *buffer, size_t count, off64_t offset) {
  return pread(descriptor, buffer, count, offset);
}

ssize_t pwrite64(int descriptor, const void *buffer, size_t count, off64_t offset) {
  return pwrite(descriptor, buffer, count, offset);
}

int io_getevents(io_context_t context, long least, long most, struct io_event *events,
                 struct timespec *patience) {
  uint64_t chance = next();
  if (chance % 8 == 0) return -EINTR;
  int count = real_getevents(context, least, most, events, patience);
  for (int index = 0; index < count; index++) {
    long result = (long)events[index].res;
    if (result >= 8192 && next() % 3 == 0)
      events[index].res = (unsigned long)((next() % (result / 512 - 1)) * 512);
  }
  return count;
}
