#include "clibvirt.h"

#include <dlfcn.h>
#include <stddef.h>

const char *clibvirt_load(void) {
  static void *library;
  if (library == NULL) library = dlopen("libvirt.so.0", RTLD_NOW | RTLD_LOCAL);
  return library == NULL ? dlerror() : NULL;
}
