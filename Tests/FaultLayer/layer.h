// What the files of the layer have in common.
#ifndef STROBE_FAULTLAYER_LAYER_H
#define STROBE_FAULTLAYER_LAYER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "include/faultlayer.h"

#include <limits.h>
#include <stddef.h>

// The C library's own function `name`, in a pointer of the same type.
#define REAL(name) ((__typeof__(&name))layer_real(&real_##name, #name))
#define DECLARE_REAL(name) static void *_Atomic real_##name
void *layer_real(void *_Atomic *slot, const char *name);

// Set while anything is asked of the layer for files: all else costs one load.
extern _Atomic int layer_is_active;
// Set while the thread is in a hook.
extern _Thread_local int layer_is_inside;
void layer_update_active(void);
extern _Atomic int layer_has_faults, layer_is_recording;

// paths.c: `path`, relative to a folder's descriptor, as an absolute one without `.`, `..` and double slashes.
// Returns 0 when it is too long or the folder can't be told.
int layer_absolute(int folder, const char *path, char result[PATH_MAX]);
int layer_path_of(int descriptor, char result[PATH_MAX]);
int layer_is_below(const char *path, const char *prefix);

// faults.c: what becomes of a call.
struct layer_verdict {
  int error;         // not 0: fail with it
  int64_t limit;     // bytes that may move; -1: all
  int carried_out;   // carry it out before failing
  int exits;         // end the process after it
};
void layer_count(uint32_t call);
struct layer_verdict layer_ask(uint32_t call, const char *path);
// Bytes of `wanted` that still fit; the others' share is taken.
int64_t layer_take_space(const char *path, int64_t wanted);
int layer_has_space_limit(void);
void layer_give_back_space(int64_t bytes);

// recorder.c: `begin` keeps everybody else from taking effect until `end`.
void layer_recorder_begin(void);
void layer_recorder_end(void);
// The path below the recorder's prefix, or NULL.
const char *layer_recorded(const char *path);
struct layer_entry {
  uint32_t kind;
  uint64_t object;
  int64_t offset, length;
  const char *path, *other;
  const void *bytes;
};
void layer_append(struct layer_entry entry);
// The object behind a descriptor below the prefix, 0 when it is elsewhere; `fresh` when it was just made.
uint64_t layer_object(int descriptor, int fresh, const char *path);
// The object that a path leads to, 0 when there is none.
uint64_t layer_object_at(const char *absolute, int follow);
void layer_forget_descriptor(int descriptor);

#endif
