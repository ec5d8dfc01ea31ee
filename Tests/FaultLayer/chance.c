#include "layer.h"

#include <errno.h>
#include <libaio.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// Time and random bytes.

static _Atomic int64_t clock_offset;
static _Atomic int clock_is_held;
static _Atomic int64_t held_time, held_step;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int is_seeded;
static uint64_t state;

DECLARE_REAL(clock_gettime);
DECLARE_REAL(getrandom);
DECLARE_REAL(getentropy);
DECLARE_REAL(syscall);
DECLARE_REAL(getpid);
DECLARE_REAL(nanosleep);
DECLARE_REAL(io_getevents);

static _Atomic int skips_sleeps, process_number;

void faultlayer_skip_sleeps(int is_on) { atomic_store(&skips_sleeps, is_on); }
void faultlayer_set_process(int number) { atomic_store(&process_number, number); }

pid_t getpid(void) {
  int number = atomic_load_explicit(&process_number, memory_order_relaxed);
  return number ? number : REAL(getpid)();
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
  return atomic_load(&skips_sleeps) ? 0 : REAL(nanosleep)(wanted, left);
}

int usleep(useconds_t microseconds) {
  struct timespec wanted = {microseconds / 1000000, microseconds % 1000000 * 1000L};
  return nanosleep(&wanted, NULL);
}

// A request's result, said to be a failure. Weak: a program that carries out its requests itself brings its own.
__attribute__((weak)) int io_getevents(io_context_t context, long minimum, long count, struct io_event *events,
                                       struct timespec *timeout) {
  int found = REAL(io_getevents)(context, minimum, count, events, timeout);
  for (int index = 0; index < found; index++) {
    layer_count(FAULTLAYER_AIO);
    char path[PATH_MAX];
    if (!layer_has_faults || layer_is_inside || !layer_path_of(events[index].obj->aio_fildes, path)) continue;
    struct layer_verdict verdict = layer_ask(FAULTLAYER_AIO, path);
    if (verdict.error) events[index].res = (unsigned long)-(long)verdict.error;
    if (verdict.limit > 0 && (unsigned long)verdict.limit < events[index].res) events[index].res = verdict.limit;
  }
  return found;
}

void faultlayer_set_clock_offset(int64_t nanoseconds) { atomic_store(&clock_offset, nanoseconds); }

void faultlayer_hold_clock(int64_t at, int64_t step) {
  atomic_store(&held_time, at);
  atomic_store(&held_step, step);
  atomic_store(&clock_is_held, at >= 0);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = REAL(clock_gettime)(clock, time);
  if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
  int64_t offset = atomic_load_explicit(&clock_offset, memory_order_relaxed);
  int is_held = atomic_load_explicit(&clock_is_held, memory_order_relaxed);
  if (offset == 0 && !is_held) return result;
  int64_t now = time->tv_sec * 1000000000LL + time->tv_nsec;
  if (is_held) now = atomic_fetch_add(&held_time, atomic_load(&held_step));
  now += offset;
  time->tv_sec = now / 1000000000LL;
  time->tv_nsec = now % 1000000000LL;
  if (time->tv_nsec < 0) {
    time->tv_nsec += 1000000000LL;
    time->tv_sec--;
  }
  return result;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  result->tv_sec = now.tv_sec;
  result->tv_usec = now.tv_nsec / 1000;
  return 0;
}

void faultlayer_seed_random(uint64_t seed) {
  pthread_mutex_lock(&lock);
  state = seed;
  atomic_store(&is_seeded, 1);
  pthread_mutex_unlock(&lock);
}

void faultlayer_real_random(void) { atomic_store(&is_seeded, 0); }

// SplitMix64: https://prng.di.unimi.it/splitmix64.c
static uint64_t next(void) {
  uint64_t value = (state += 0x9E3779B97F4A7C15u);
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

static void fill(unsigned char *bytes, size_t count) {
  pthread_mutex_lock(&lock);
  while (count > 0) {
    uint64_t word = next();
    size_t part = count < 8 ? count : 8;
    memcpy(bytes, &word, part);
    bytes += part;
    count -= part;
  }
  pthread_mutex_unlock(&lock);
}

ssize_t getrandom(void *bytes, size_t count, unsigned flags) {
  if (!atomic_load(&is_seeded)) return REAL(getrandom)(bytes, count, flags);
  fill(bytes, count);
  return (ssize_t)count;
}

int getentropy(void *bytes, size_t count) {
  if (!atomic_load(&is_seeded)) return REAL(getentropy)(bytes, count);
  fill(bytes, count);
  return 0;
}

// Swift's generator asks through syscall(2).
long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (int index = 0; index < 6; index++) arguments[index] = va_arg(list, long);
  va_end(list);
  if (number == SYS_getrandom && atomic_load(&is_seeded)) {
    fill((unsigned char *)arguments[0], (size_t)arguments[1]);
    return arguments[1];
  }
  return REAL(syscall)(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}
