#define _GNU_SOURCE
#include "CLinux.h"

#include <linux/fs.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

int clinux_block_size64(int descriptor, uint64_t *bytes) { return ioctl(descriptor, BLKGETSIZE64, bytes); }
int clinux_block_logical_sector(int descriptor, int *bytes) { return ioctl(descriptor, BLKSSZGET, bytes); }
int clinux_block_physical_sector(int descriptor, unsigned *bytes) { return ioctl(descriptor, BLKPBSZGET, bytes); }
int clinux_block_read_only(int descriptor, int *flag) { return ioctl(descriptor, BLKROGET, flag); }
int clinux_block_flush_buffers(int descriptor) { return ioctl(descriptor, BLKFLSBUF, 0); }

int clinux_block_zero_out(int descriptor, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ioctl(descriptor, BLKZEROOUT, range);
}

int clinux_loop_facts(int descriptor, struct clinux_loop_facts *facts) {
  struct loop_info64 info;
  memset(&info, 0, sizeof info);
  if (ioctl(descriptor, LOOP_GET_STATUS64, &info) != 0) return -1;
  facts->backing_major = gnu_dev_major(info.lo_device);
  facts->backing_minor = gnu_dev_minor(info.lo_device);
  facts->special_major = gnu_dev_major(info.lo_rdevice);
  facts->special_minor = gnu_dev_minor(info.lo_rdevice);
  facts->backing_inode = info.lo_inode;
  facts->offset = info.lo_offset;
  facts->size_limit = info.lo_sizelimit;
  return 0;
}
