# shellcheck shell=bash disable=SC2034,SC2154
# Which disks hold a path: the part that decides whether a point of a database is worth anything.

# covers "DISKS" PATH
covers() {
  # shellcheck disable=SC2016
  env -i PATH="$PATH" HOOK_CONFIG="$folder/config" STROBE_DISKS="$1" "$BASH" -c '
    hook_name=test
    . "$1/common.bash"
    read_disks
    is_path_covered "$2"' -- "$hooks" "$2" >"$folder/output" 2>&1
}
misses() { ! covers "$@"; }

# Sets $device to a new loop device of FILE, with its partitions.
attach() {
  truncate -s "$2" "$folder/$1.raw"
  device=$(losetup --partscan --find --show "$folder/$1.raw")
  undo+=("losetup -d $device")
}
mount_at() {
  mkdir -p "$folder/$1"
  mount "${@:2}" "$folder/$1" || return 1
  undo+=("umount $folder/$1")
}

make_disk ext4 64M
ext4=$device
passes "a file system on a disk is covered" covers "a=$ext4" "$folder/ext4"
passes "with a disk of other content it is not" misses "a=/dev/zero" "$folder/ext4"
passes "by the image file of its loop device it is" covers "a=$folder/ext4.raw" "$folder/ext4"
mkdir "$folder/bound"
mount --bind "$folder/ext4" "$folder/bound"
undo+=("umount $folder/bound")
passes "a bind mount is covered by what it shows" covers "a=$ext4" "$folder/bound"
passes "tmpfs is on no disk" misses "a=$ext4" /dev/shm

truncate -s 32M "$folder/ext4/inner.raw"
inner=$(losetup --find --show "$folder/ext4/inner.raw")
undo+=("losetup -d $inner")
mkfs.ext4 -q "$inner"
mount_at inner "$inner"
passes "a loop device's file on a covered file system is covered" covers "a=$ext4" "$folder/inner"

if command -v mkfs.btrfs >/dev/null; then
  attach one 256M; one=$device
  attach two 256M; two=$device
  mkfs.btrfs -q -d raid0 -m raid1 "$one" "$two" >/dev/null 2>&1
  if mount_at btrfs "$one" 2>/dev/null; then
    passes "Btrfs on two devices is covered by both" covers "a=$one"$'\n'"b=$two" "$folder/btrfs"
    passes "not by the first alone" misses "a=$one" "$folder/btrfs"
    passes "nor by the second alone" misses "a=$two" "$folder/btrfs"
  else
    skip "Btrfs: the kernel has none"
  fi
else
  skip "Btrfs: no mkfs.btrfs"
fi

if command -v mkfs.xfs >/dev/null; then
  attach body 320M; body=$device
  attach log 96M; log=$device
  mkfs.xfs -q -f -l "logdev=$log" "$body"
  if mount_at xfs -o "logdev=$log" "$body" 2>/dev/null; then
    passes "XFS with its log elsewhere is covered by both" covers "a=$body"$'\n'"b=$log" "$folder/xfs"
    passes "not without the log" misses "a=$body" "$folder/xfs"
  else
    skip "XFS: the kernel has none"
  fi
else
  skip "XFS: no mkfs.xfs"
fi

if command -v sfdisk >/dev/null; then
  truncate -s 64M "$folder/parted.raw"
  echo 'start=2048' | sfdisk -q "$folder/parted.raw" >/dev/null
  attach parted 64M
  test -b "${device}p1" || partx -a "$device" 2>/dev/null
  if eventually 5 test -b "${device}p1"; then
    mkfs.ext4 -q "${device}p1"
    mount_at parted "${device}p1"
    passes "a partition is covered by its disk" covers "a=$device" "$folder/parted"
    passes "and by itself" covers "a=${device}p1" "$folder/parted"
    passes "but not by another disk" misses "a=$ext4" "$folder/parted"
  else
    skip "partitions: none appear on loop devices here"
  fi
else
  skip "partitions: no sfdisk"
fi
