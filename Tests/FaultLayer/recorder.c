#include "layer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// The record: what took effect below one folder, in order. One lock is held from before a call goes to the kernel
// until it is written down, so that the order of the record is the order of the effects.
//
// A file is known by its device and inode from the moment when it is made; a new file that gets the inode of a dead
// one is another object.

enum { block_size = 4096, descriptor_limit = 1 << 16 };

struct known_file {
  dev_t device;
  ino_t inode;
  uint64_t object;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char prefix[PATH_MAX];
static struct faultlayer_op **blocks;
static uint64_t op_count, block_count;
static struct known_file *files;  // a hash table; object 0: a free place
static size_t file_places, file_count;
static uint64_t last_object;
// What is known of a descriptor: 0 nothing, 1 not below the prefix, else 2 + the object.
static _Atomic uint64_t descriptors[descriptor_limit];

void layer_recorder_begin(void) { pthread_mutex_lock(&lock); }
void layer_recorder_end(void) { pthread_mutex_unlock(&lock); }

const char *layer_recorded(const char *path) {
  if (!layer_is_recording || !layer_is_below(path, prefix)) return NULL;
  path += strlen(prefix);
  while (*path == '/') path++;
  return path;
}

static void clear(void) {
  for (uint64_t number = 0; number < op_count; number++) {
    struct faultlayer_op *op = &blocks[number / block_size][number % block_size];
    free((char *)op->path);
    free((char *)op->other);
    free((unsigned char *)op->bytes);
  }
  for (uint64_t block = 0; block < block_count; block++) free(blocks[block]);
  free(blocks);
  free(files);
  blocks = NULL;
  files = NULL;
  op_count = block_count = 0;
  file_places = file_count = 0;
  last_object = 0;
  for (int descriptor = 0; descriptor < descriptor_limit; descriptor++) atomic_store(&descriptors[descriptor], 0);
}

void faultlayer_record(const char *folder) {
  pthread_mutex_lock(&lock);
  clear();
  strncpy(prefix, folder, sizeof prefix - 1);
  for (size_t count = strlen(prefix); count > 1 && prefix[count - 1] == '/'; count--) prefix[count - 1] = 0;
  atomic_store(&layer_is_recording, 1);
  layer_update_active();
  pthread_mutex_unlock(&lock);
}

void faultlayer_stop_recording(void) {
  pthread_mutex_lock(&lock);
  atomic_store(&layer_is_recording, 0);
  layer_update_active();
  pthread_mutex_unlock(&lock);
}

uint64_t faultlayer_op_count(void) {
  pthread_mutex_lock(&lock);
  uint64_t count = op_count;
  pthread_mutex_unlock(&lock);
  return count;
}

struct faultlayer_op faultlayer_op_at(uint64_t number) {
  struct faultlayer_op op = {.path = "", .other = ""};
  pthread_mutex_lock(&lock);
  if (number < op_count) op = blocks[number / block_size][number % block_size];
  pthread_mutex_unlock(&lock);
  return op;
}

void faultlayer_mark(const char *note) {
  layer_recorder_begin();
  if (layer_is_recording) layer_append((struct layer_entry){.kind = FAULTLAYER_OP_MARK, .path = note});
  layer_recorder_end();
}

void layer_append(struct layer_entry entry) {
  if (op_count == block_count * block_size) {
    blocks = realloc(blocks, (block_count + 1) * sizeof *blocks);
    if (!blocks) abort();
    blocks[block_count] = calloc(block_size, sizeof **blocks);
    if (!blocks[block_count++]) abort();
  }
  struct faultlayer_op *op = &blocks[op_count / block_size][op_count % block_size];
  *op = (struct faultlayer_op){
      .number = op_count,
      .kind = entry.kind,
      .thread = gettid(),
      .object = entry.object,
      .offset = entry.offset,
      .length = entry.length,
      .path = strdup(entry.path ? entry.path : ""),
      .other = strdup(entry.other ? entry.other : ""),
  };
  if (entry.bytes) {
    unsigned char *copy = malloc(entry.length > 0 ? entry.length : 1);
    if (!copy) abort();
    memcpy(copy, entry.bytes, entry.length);
    op->bytes = copy;
  }
  op_count++;
}

// ---------------------------------------------------------------- files

static struct known_file *place(dev_t device, ino_t inode) {
  size_t at = (inode * 0x9E3779B97F4A7C15u ^ device) % file_places;
  while (files[at].object && (files[at].device != device || files[at].inode != inode)) at = (at + 1) % file_places;
  return &files[at];
}

static void grow(void) {
  if (file_count * 2 < file_places) return;
  struct known_file *old = files;
  size_t old_places = file_places;
  file_places = old_places ? old_places * 2 : 1024;
  files = calloc(file_places, sizeof *files);
  if (!files) abort();
  for (size_t at = 0; at < old_places; at++)
    if (old[at].object) *place(old[at].device, old[at].inode) = old[at];
  free(old);
}

// The object of a file; one that is met for the first time is put into the record.
static uint64_t object_of(const struct stat *facts, int fresh, const char *path) {
  grow();
  struct known_file *file = place(facts->st_dev, facts->st_ino);
  if (file->object && !fresh) return file->object;
  if (!file->object) file_count++;
  *file = (struct known_file){facts->st_dev, facts->st_ino, ++last_object};
  if (!fresh)
    layer_append((struct layer_entry){.kind = FAULTLAYER_OP_KNOWN, .object = file->object, .path = path});
  return file->object;
}

uint64_t layer_object(int descriptor, int fresh, const char *path) {
  if (descriptor < 0) return 0;
  int is_kept = descriptor < descriptor_limit;
  uint64_t known = is_kept && !fresh ? atomic_load(&descriptors[descriptor]) : 0;
  if (known) return known == 1 ? 0 : known - 2;
  uint64_t object = 0;
  struct stat facts;
  char found[PATH_MAX];
  if (!path && layer_path_of(descriptor, found)) path = layer_recorded(found);
  if (path && fstat(descriptor, &facts) == 0 && S_ISREG(facts.st_mode)) object = object_of(&facts, fresh, path);
  if (is_kept) atomic_store(&descriptors[descriptor], object ? 2 + object : 1);
  return object;
}

uint64_t layer_object_at(const char *absolute, int follow) {
  struct stat facts;
  int result = follow ? stat(absolute, &facts) : lstat(absolute, &facts);
  const char *path = layer_recorded(absolute);
  if (result != 0 || !S_ISREG(facts.st_mode)) return 0;
  return object_of(&facts, 0, path ? path : "");
}

void layer_forget_descriptor(int descriptor) {
  if (descriptor >= 0 && descriptor < descriptor_limit) atomic_store(&descriptors[descriptor], 0);
}
