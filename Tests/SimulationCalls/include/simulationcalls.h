// What the simulation needs below Swift: a hook for FaultLayer that counts calls and crashes, stops or refuses at the
// Nth; asynchronous I/O that is carried out at once, in order; time that isn't slept away.
#ifndef STROBE_SIMULATIONCALLS_H
#define STROBE_SIMULATIONCALLS_H

#include <stdint.h>
#include <sys/types.h>

enum {
  SIMULATION_COUNT,  // nothing but counting
  SIMULATION_CRASH,  // the process ends before the call, with status SIMULATION_CRASH_STATUS
  SIMULATION_STOP,   // the process stops before the call (SIGSTOP), once
  SIMULATION_FAIL,   // the call fails
};
enum { SIMULATION_CRASH_STATUS = 137 };

// Folders whose calls are counted, to be added up.
enum { SIMULATION_REPOSITORY = 1, SIMULATION_DISKS = 2, SIMULATION_ELSEWHERE = 4 };

struct simulation_plan {
  int mode;
  int folders;      // which folders' calls count
  uint32_t calls;   // which kinds of calls count, of FAULTLAYER_…
  uint64_t at;      // the call at which it happens, from 1
  uint64_t count;   // how many calls fail, from that one on; 0: all
  int error;        // errno
};

// The world's folder, and the repository and the disks in it.
void simulation_set_folders(const char *world, const char *repository, const char *disks);
// From here on calls are counted, and the plan is carried out.
void simulation_arm(const struct simulation_plan *plan);
// Ends that. Returns how many calls counted.
uint64_t simulation_disarm(void);
uint64_t simulation_failed_calls(void);

// Once, before everything else.
void simulation_begin(void);

// fork(2), which Swift hides. Only while the process has a single thread.
pid_t simulation_fork(void);
// getpid(2) as it is: the engine sees the same number in every run.
pid_t simulation_process(void);
// pipe(2) with room for a mebibyte.
int simulation_pipe(int ends[2]);

#endif
