#define _GNU_SOURCE
#include "include/simulationcalls.h"

#include <errno.h>
#include <libaio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

// libaio's requests, defined here before the library's own, are carried out when they are submitted, through pread(2) and pwrite(2), which FaultLayer sees. So
// their order is the same in each run, they can be made to fail, and a forked child can go on with a context of its
// parent's, which the kernel's own don't survive.

enum { queue_size = 256 };

struct io_context {
  struct io_event events[queue_size];
  unsigned first, count;
};

// Workers are as urgent as everything else here: nobody's disk waits for them.
int setpriority(__priority_which_t which, id_t who, int priority) {
  (void)which, (void)who, (void)priority;
  return 0;
}

int io_queue_init(int capacity, io_context_t *context) {
  if (capacity > queue_size) return -EINVAL;
  *context = calloc(1, sizeof **context);
  return *context ? 0 : -ENOMEM;
}

int io_queue_release(io_context_t context) {
  free(context);
  return 0;
}

static long carry_out(const struct iocb *request) {
  ssize_t result = -1;
  switch (request->aio_lio_opcode) {
    case IO_CMD_PREAD:
      result = pread(request->aio_fildes, request->u.c.buf, request->u.c.nbytes, request->u.c.offset);
      break;
    case IO_CMD_PWRITE:
      result = pwrite(request->aio_fildes, request->u.c.buf, request->u.c.nbytes, request->u.c.offset);
      break;
    default:
      return -EINVAL;
  }
  return result < 0 ? -errno : result;
}

int io_submit(io_context_t context, long count, struct iocb **requests) {
  long done = 0;
  for (; done < count && context->count < queue_size; done++) {
    struct io_event *event = &context->events[(context->first + context->count++) % queue_size];
    event->data = requests[done]->data;
    event->obj = requests[done];
    event->res = (unsigned long)carry_out(requests[done]);
    event->res2 = 0;
  }
  return done ? (int)done : -EAGAIN;
}

int io_getevents(io_context_t context, long least, long most, struct io_event *events, struct timespec *timeout) {
  (void)least, (void)timeout;
  long done = 0;
  for (; done < most && context->count > 0; done++, context->count--) {
    events[done] = context->events[context->first];
    context->first = (context->first + 1) % queue_size;
  }
  return (int)done;
}
