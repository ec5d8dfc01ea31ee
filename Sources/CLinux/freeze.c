#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <signal.h>
#include <string.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

const int clinux_O_PATH = O_PATH;

int clinux_freeze(int descriptor) { return ioctl(descriptor, FIFREEZE, 0); }
int clinux_thaw(int descriptor) { return ioctl(descriptor, FITHAW, 0); }
int clinux_syncfs(int descriptor) { return syncfs(descriptor); }

int clinux_lock_memory(void) { return mlockall(MCL_CURRENT | MCL_FUTURE); }

int clinux_btrfs_id(int descriptor, unsigned char id[16]) {
  struct btrfs_ioctl_fs_info_args info;
  memset(&info, 0, sizeof info);
  if (ioctl(descriptor, BTRFS_IOC_FS_INFO, &info) != 0) return -1;
  memcpy(id, info.fsid, 16);
  return 0;
}

int clinux_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int clinux_socket_pair(int ends[2]) {
  return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

int clinux_process_descriptor(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

int clinux_process_signal(int process_descriptor, int signal_number) {
  return (int)syscall(SYS_pidfd_send_signal, process_descriptor, signal_number, NULL, 0);
}

int clinux_spawn(pid_t *process, const char *program, char *const arguments[], char *const environment[],
                 const int descriptors[], int count, int new_session) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int result = posix_spawn_file_actions_init(&actions);
  if (result != 0) return result;
  result = posix_spawnattr_init(&attributes);
  if (result != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return result;
  }
  for (int index = 0; index < count && result == 0; index++)
    result = posix_spawn_file_actions_adddup2(&actions, descriptors[index], index);
  if (result == 0) result = posix_spawn_file_actions_addclosefrom_np(&actions, count);
  if (result == 0) result = posix_spawn_file_actions_addchdir_np(&actions, "/");
  if (result == 0) {
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              (new_session ? POSIX_SPAWN_SETSID : POSIX_SPAWN_SETPGROUP));
    result = posix_spawn(process, program, &actions, &attributes, arguments, environment);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return result;
}

int clinux_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

void clinux_ignore_signals(void) {
  for (int number = 1; number < SIGRTMIN; number++) {
    switch (number) {
      // What a fault raises must end the process; children are waited for.
      case SIGKILL: case SIGSTOP: case SIGCHLD: case SIGCONT: case SIGSEGV: case SIGBUS:
      case SIGILL: case SIGFPE: case SIGTRAP: case SIGABRT: case SIGSYS:
        continue;
      default: signal(number, SIG_IGN);
    }
  }
}
