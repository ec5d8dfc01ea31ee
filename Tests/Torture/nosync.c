// Loaded into strobe by LD_PRELOAD (see powercut.py --sabotage): some of what is to be made durable isn't, and the
// calls say that it was. A test of power cuts that finds nothing wrong with that tests nothing.
//
// STROBE_TORTURE_NOSYNC: `files` or `directories` for those only; everything otherwise.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_passed_over(int descriptor) {
  const char *which = getenv("STROBE_TORTURE_NOSYNC");
  struct stat facts;
  if (!which || fstat(descriptor, &facts) != 0) return 1;
  if (strcmp(which, "files") == 0) return !S_ISDIR(facts.st_mode);
  if (strcmp(which, "directories") == 0) return S_ISDIR(facts.st_mode);
  return 1;
}

int fsync(int descriptor) {
  return is_passed_over(descriptor) ? 0 : (int)syscall(SYS_fsync, descriptor);
}

int fdatasync(int descriptor) {
  return is_passed_over(descriptor) ? 0 : (int)syscall(SYS_fdatasync, descriptor);
}

int syncfs(int descriptor) { return (void)descriptor, 0; }

// Only starts or awaits the writing of a file's data: never enough, but it would hide what is missing.
int sync_file_range(int descriptor, off64_t offset, off64_t count, unsigned flags) {
  return (void)descriptor, (void)offset, (void)count, (void)flags, 0;
}
