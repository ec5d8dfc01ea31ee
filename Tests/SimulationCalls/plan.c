#define _GNU_SOURCE
#include "include/simulationcalls.h"

#include <faultlayer.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// The hook that FaultLayer asks before each call below the world's folder.

static char world[256], repository[256], disks[256];
static struct simulation_plan plan;
static _Atomic uint64_t seen, failed;

static int is_below(const char *path, const char *folder) {
  size_t length = strlen(folder);
  return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int folder_of(const char *path) {
  if (is_below(path, repository)) return SIMULATION_REPOSITORY;
  return is_below(path, disks) ? SIMULATION_DISKS : SIMULATION_ELSEWHERE;
}

static int answer(void *context, uint32_t call, const char *path) {
  (void)context;
  if (!(plan.calls & call) || !(plan.folders & folder_of(path))) return 0;
  uint64_t number = atomic_fetch_add(&seen, 1) + 1;
  switch (plan.mode) {
    case SIMULATION_CRASH:
      if (number == plan.at) _exit(SIMULATION_CRASH_STATUS);
      return 0;
    case SIMULATION_STOP:
      if (number == plan.at) raise(SIGSTOP);
      return 0;
    case SIMULATION_FAIL:
      if (number < plan.at || (plan.count && number >= plan.at + plan.count)) return 0;
      atomic_fetch_add(&failed, 1);
      return plan.error;
    default:
      return 0;
  }
}

void simulation_set_folders(const char *world_folder, const char *repository_folder, const char *disk_folder) {
  strncpy(world, world_folder, sizeof world - 1);
  strncpy(repository, repository_folder, sizeof repository - 1);
  strncpy(disks, disk_folder, sizeof disks - 1);
}

void simulation_arm(const struct simulation_plan *new_plan) {
  plan = *new_plan;
  atomic_store(&seen, 0);
  atomic_store(&failed, 0);
  faultlayer_set_hook(world, answer, NULL);
}

uint64_t simulation_disarm(void) {
  faultlayer_clear_faults();
  return atomic_load(&seen);
}

uint64_t simulation_failed_calls(void) { return atomic_load(&failed); }

pid_t simulation_fork(void) {
  pid_t process = fork();
  // Nothing outlives the simulation, whatever ends it.
  if (process == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  return process;
}

void simulation_begin(void) {
  // Buffers of a few MiB are made for each pass over a tiny disk: zeroing huge pages for them takes most of the time.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  // A mount namespace of its own, in which the machine has no block devices: others' loop devices come and go, and
  // looking at each of them is most of what a restore to a small file does. Without root it is only slower.
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return;
  mount("none", "/sys/class/block", "tmpfs", MS_RDONLY, "size=4k");
}

pid_t simulation_process(void) { return (pid_t)syscall(SYS_getpid); }

int simulation_pipe(int ends[2]) {
  int result = pipe2(ends, O_CLOEXEC);
  // What a child says fits, so that it never waits for its parent.
  if (result == 0) fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
  return result;
}
