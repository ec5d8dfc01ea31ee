#include "layer.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What becomes of a call: faults, the full disk, the hook.

enum { fault_limit = 64 };

struct kept_fault {
  struct faultlayer_fault what;
  uint64_t seen, failed;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept_fault faults[fault_limit];
static int fault_count;
static char *space_prefix;
static int64_t space_left = -1;
static char *hook_prefix;
static faultlayer_hook hook_function;
static void *hook_context;
static _Atomic uint64_t made[32];

_Atomic int layer_is_active, layer_has_faults, layer_is_recording;
_Thread_local int layer_is_inside;

void *layer_real(void *_Atomic *slot, const char *name) {
  void *found = atomic_load_explicit(slot, memory_order_acquire);
  if (found) return found;
  found = dlsym(RTLD_NEXT, name);
  if (!found) {
    fprintf(stderr, "faultlayer: the C library has no %s\n", name);
    abort();
  }
  atomic_store_explicit(slot, found, memory_order_release);
  return found;
}

void layer_update_active(void) { atomic_store(&layer_is_active, layer_has_faults || layer_is_recording); }

static void update(void) {
  atomic_store(&layer_has_faults, fault_count > 0 || space_left >= 0 || hook_function != NULL);
  layer_update_active();
}

void layer_count(uint32_t call) {
  atomic_fetch_add_explicit(&made[__builtin_ctz(call)], 1, memory_order_relaxed);
}

uint64_t faultlayer_calls_made(uint32_t calls) {
  uint64_t sum = 0;
  for (int bit = 0; bit < 32; bit++)
    if (calls >> bit & 1) sum += atomic_load(&made[bit]);
  return sum;
}

int faultlayer_add_fault(const struct faultlayer_fault *fault) {
  pthread_mutex_lock(&lock);
  int number = -1;
  if (fault_count < fault_limit) {
    number = fault_count++;
    struct kept_fault *kept = &faults[number];
    memset(kept, 0, sizeof *kept);
    kept->what = *fault;
    kept->what.prefix = strdup(fault->prefix);
    kept->what.part = fault->part ? strdup(fault->part) : NULL;
  }
  update();
  pthread_mutex_unlock(&lock);
  return number;
}

void faultlayer_restart_fault(int fault) {
  pthread_mutex_lock(&lock);
  if (fault >= 0 && fault < fault_count) faults[fault].seen = faults[fault].failed = 0;
  pthread_mutex_unlock(&lock);
}

static uint64_t count_of(int fault, int failed) {
  pthread_mutex_lock(&lock);
  uint64_t count = 0;
  if (fault >= 0 && fault < fault_count) count = failed ? faults[fault].failed : faults[fault].seen;
  pthread_mutex_unlock(&lock);
  return count;
}

uint64_t faultlayer_calls_seen(int fault) { return count_of(fault, 0); }
uint64_t faultlayer_calls_failed(int fault) { return count_of(fault, 1); }

static void replace_text(char **place, const char *text) {
  free(*place);
  *place = text ? strdup(text) : NULL;
}

void faultlayer_clear_faults(void) {
  pthread_mutex_lock(&lock);
  for (int index = 0; index < fault_count; index++) {
    free((char *)faults[index].what.prefix);
    free((char *)faults[index].what.part);
  }
  fault_count = 0;
  space_left = -1;
  hook_function = NULL;
  update();
  pthread_mutex_unlock(&lock);
}

void faultlayer_set_space(const char *prefix, int64_t bytes) {
  pthread_mutex_lock(&lock);
  replace_text(&space_prefix, prefix);
  space_left = bytes < 0 ? -1 : bytes;
  update();
  pthread_mutex_unlock(&lock);
}

int64_t faultlayer_space_left(void) {
  pthread_mutex_lock(&lock);
  int64_t left = space_left;
  pthread_mutex_unlock(&lock);
  return left;
}

int layer_has_space_limit(void) { return faultlayer_space_left() >= 0; }

int64_t layer_take_space(const char *path, int64_t wanted) {
  pthread_mutex_lock(&lock);
  int64_t taken = wanted;
  if (space_left >= 0 && layer_is_below(path, space_prefix)) {
    if (taken > space_left) taken = space_left;
    space_left -= taken;
  }
  pthread_mutex_unlock(&lock);
  return taken;
}

void layer_give_back_space(int64_t bytes) {
  pthread_mutex_lock(&lock);
  if (space_left >= 0) space_left += bytes;
  pthread_mutex_unlock(&lock);
}

void faultlayer_set_hook(const char *prefix, faultlayer_hook hook, void *context) {
  pthread_mutex_lock(&lock);
  replace_text(&hook_prefix, prefix);
  hook_function = hook;
  hook_context = context;
  update();
  pthread_mutex_unlock(&lock);
}

static int is_due(struct kept_fault *fault, uint32_t call, const char *path) {
  if (!(fault->what.calls & call) || !layer_is_below(path, fault->what.prefix)) return 0;
  if (fault->what.part && !strstr(path, fault->what.part)) return 0;
  uint64_t number = ++fault->seen;
  uint64_t first = fault->what.first ? fault->what.first : 1;
  if (number < first || (fault->what.count && number >= first + fault->what.count)) return 0;
  fault->failed++;
  return 1;
}

struct layer_verdict layer_ask(uint32_t call, const char *path) {
  struct layer_verdict verdict = {.limit = -1};
  if (!layer_has_faults || layer_is_inside) return verdict;
  faultlayer_hook hook = NULL;
  void *context = NULL;
  int stops = 0;
  pthread_mutex_lock(&lock);
  for (int index = 0; index < fault_count; index++) {
    struct kept_fault *fault = &faults[index];
    if (!is_due(fault, call, path) || verdict.error) continue;
    if (fault->what.action == FAULTLAYER_EXIT) {
      if (call != FAULTLAYER_WRITE || fault->what.short_bytes <= 0) _exit(137);
      verdict.exits = 1;
      verdict.limit = fault->what.short_bytes;
      continue;
    }
    if (fault->what.action == FAULTLAYER_STOP) {
      stops = 1;
      continue;
    }
    verdict.error = fault->what.error;
    verdict.carried_out = fault->what.carried_out;
    if (!fault->what.error) verdict.limit = fault->what.short_bytes;
  }
  const uint32_t takes_space = FAULTLAYER_CREATE | FAULTLAYER_MKDIR | FAULTLAYER_LINK;
  if (!verdict.error && (call & takes_space) && space_left == 0 && layer_is_below(path, space_prefix))
    verdict.error = ENOSPC;
  if (!verdict.error && hook_function && layer_is_below(path, hook_prefix)) {
    hook = hook_function;
    context = hook_context;
  }
  pthread_mutex_unlock(&lock);
  if (stops) raise(SIGSTOP);
  if (hook) {
    layer_is_inside = 1;
    verdict.error = hook(context, call, path);
    layer_is_inside = 0;
  }
  return verdict;
}
