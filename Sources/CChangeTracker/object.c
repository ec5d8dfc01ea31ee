#include "CChangeTracker.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include "tracker_object.h"

const void *cchange_tracker_object(size_t *size) {
  *size = sizeof tracker_object;
  return tracker_object;
}

int cchange_tracker_is_bpf_file_system(const char *path) {
  struct statfs facts;
  return statfs(path, &facts) == 0 && (unsigned long)facts.f_type == BPF_FS_MAGIC;
}
