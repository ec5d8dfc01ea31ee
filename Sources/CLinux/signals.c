#define _GNU_SOURCE
#include "CLinux.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static _Atomic int termination_signal;

static void remember(int signal_number) {
  int none = 0;
  atomic_compare_exchange_strong(&termination_signal, &none, signal_number);
}

void clinux_remember_termination_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  const int signals[] = {SIGINT, SIGTERM, SIGHUP};
  for (size_t index = 0; index < sizeof signals / sizeof *signals; index++) {
    // What nohup(1) and a shell's '&' told the program to ignore stays ignored.
    struct sigaction inherited;
    if (sigaction(signals[index], NULL, &inherited) == 0 && inherited.sa_handler == SIG_IGN) continue;
    sigaction(signals[index], &action, NULL);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, NULL);
}

int clinux_termination_signal(void) { return atomic_load(&termination_signal); }

void clinux_end_by_signal(int signal_number) { _exit(128 + signal_number); }
