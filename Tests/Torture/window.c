// Loaded into strobe by LD_PRELOAD (see window.py): stops its guardian process at chosen places of the
// freeze, so that a test can look at the disks, or kill somebody, exactly there.
//
// Places, in their order:
//
//   before-freeze  before the first FIFREEZE
//   frozen-1       after the first FIFREEZE that succeeded
//   held           after the last one: as many succeeded as STROBE_TORTURE_SYSTEMS says
//   thaw           before the first FITHAW
//   thawed-1       after the first FITHAW
//
// At each place that STROBE_TORTURE_STOPS names (",PLACE,PLACE,"), the file at.PLACE.PID appears in
// STROBE_TORTURE_FOLDER, and the call goes on when go.PLACE.PID is there, or after STROBE_TORTURE_LIMIT
// milliseconds. No other file system is thawed before `thaw` goes on, although each has its own thread.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int (*real_ioctl)(int, unsigned long, void *);
static const char *folder, *stops;
static int is_guardian, system_count, limit_milliseconds;
static atomic_int freezes_begun, freezes_done, thaws_begun, thaws_done;
static pthread_mutex_t thaw_lock = PTHREAD_MUTEX_INITIALIZER;

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static void touch(const char *kind, const char *place) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s.%s.%d", folder, kind, place, (int)getpid());
  int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (file >= 0) close(file);
}

__attribute__((constructor)) static void begin(void) {
  real_ioctl = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
  folder = getenv("STROBE_TORTURE_FOLDER");
  stops = getenv("STROBE_TORTURE_STOPS");
  system_count = number("STROBE_TORTURE_SYSTEMS", 1);
  limit_milliseconds = number("STROBE_TORTURE_LIMIT", 8000);
  char line[4096] = {0};
  int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ssize_t count = read(file, line, sizeof line - 2);
  close(file);
  is_guardian = folder && count > 0 && strcmp(line + strlen(line) + 1, "guardian-process") == 0;
  if (is_guardian) touch("guardian", "process");
}

static void stop_at(const char *place) {
  char wanted[64];
  snprintf(wanted, sizeof wanted, ",%s,", place);
  if (!stops || !strstr(stops, wanted)) return;
  int code = errno;
  char path[512];
  snprintf(path, sizeof path, "%s/go.%s.%d", folder, place, (int)getpid());
  touch("at", place);
  struct timespec pause = {0, 500000};
  for (int left = limit_milliseconds * 2; left > 0 && access(path, F_OK) != 0; left--)
    nanosleep(&pause, NULL);
  errno = code;
}

static int freeze(int descriptor, void *argument) {
  if (atomic_fetch_add(&freezes_begun, 1) == 0) stop_at("before-freeze");
  int result = real_ioctl(descriptor, FIFREEZE, argument);
  if (result != 0) return result;
  int done = atomic_fetch_add(&freezes_done, 1) + 1;
  if (done == 1) stop_at("frozen-1");
  if (done == system_count) stop_at("held");
  return result;
}

static int thaw(int descriptor, void *argument) {
  pthread_mutex_lock(&thaw_lock);
  if (atomic_fetch_add(&thaws_begun, 1) == 0) stop_at("thaw");
  pthread_mutex_unlock(&thaw_lock);
  int result = real_ioctl(descriptor, FITHAW, argument);
  if (atomic_fetch_add(&thaws_done, 1) == 0) stop_at("thawed-1");
  return result;
}

int ioctl(int descriptor, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  if (is_guardian && request == FIFREEZE) return freeze(descriptor, argument);
  if (is_guardian && request == FITHAW) return thaw(descriptor, argument);
  return real_ioctl(descriptor, request, argument);
}
