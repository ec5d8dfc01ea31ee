// Loaded into strobe by LD_PRELOAD (see injection.py): stops the process before main, so that a tracer can take hold of it
// there, and what is counted are the program's own calls, not those of the loader.

#include <signal.h>
#include <stdlib.h>

__attribute__((constructor)) static void begin(void) {
  unsetenv("LD_PRELOAD");
  raise(SIGSTOP);
}
