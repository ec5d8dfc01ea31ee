"""What was restored, put to use: a second guest boots from it and its writer goes on, and it becomes other disks
of the guest that it was taken of."""

import os
import shutil

from guests_machine import NAMES, Machine, disks_of
from disk import Disk
from guest import Guest
from restored import examine
from rig import Failure, run

# Of new images; the kinds of guests that points are taken of.
FORMATS = ("qcow2", "raw")
KINDS = ("qcow2", "raw")


def last_records(machine, point):
    """The last record of each disk of a point, which has to show one instant."""
    verdict = machine.expect_restorable(point, machine.is_frozen)
    return [int(word) for word in verdict.says.split()[:len(machine.guest.writer_disks)]]


def expect_going_on(place, guest, last, end):
    """A guest that was booted from restored disks writes on after their last records, and they stay whole.

    Args:
        last: of each disk.
        end: ends it; its disks stay.
    """
    guest.start_writer()
    said = guest.command("cat /run/writer.log").split("\n")[0]
    # It begins again with a record that the last disk doesn't have.
    if said != f"writing from {last[-1] + 1}":
        raise Failure(f"the disks end with the records {last}, and the restored writer is {said}")
    number = guest.expect_writing()
    guest.stop_writer()
    guest.rest()
    end()
    images = []
    for disk in guest.disks:
        images.append(place.path(f"after-{disk.name}.raw"))
        disk.copy_raw(images[-1])
    verdict = examine(guest.cache, images).expect(is_clean=True)
    for image in images:
        os.remove(image)
    if int(verdict.says.split()[0]) < number:
        raise Failure(f"the restored guest wrote record {number}, and then had {verdict.says}")
    return f"went on after {last[-1]}, to {number}"


def boots(machine, point, last, kind):
    """A second guest boots from new images, beside the first, which leaves it the processor meanwhile."""
    folder = machine.place.path("second-images")
    images = machine.restore(point, kind, folder)
    if kind != "raw":
        for image in images.values():
            run(["qemu-img", "check", "-q", image])
    machine.guest.monitor.call("stop")
    second = Guest(machine.place, [Disk(name, format=kind, path=images[name]) for name in NAMES],
                   name="second", cache=machine.guest.cache)
    try:
        second.boot()
        return expect_going_on(machine.place, second, last, second.quit)
    finally:
        machine.guest.monitor.call("cont")
        second.remove()
        shutil.rmtree(folder)


def expect_same_files(guest, truth, count):
    """The disk that the guest got last, `count` with it, has the files of a raw image; unmounts it again."""
    guest.command(f"mount-disks {count}")
    place = guest.command("ls -d /disks/* | while read place; do "
                          "grep \" $place \" /proc/mounts; done | tail -n 1 | cut -d' ' -f2")
    if os.path.basename(place) in guest.writer_disks:
        raise Failure("the guest doesn't mount the disk")
    try:
        inside = guest.command(f"cd {place} && find . -type f | sort | xargs sha256sum")
    finally:
        guest.command(f"umount {place} && rmdir {place}")
    mount = truth + ".mount"
    os.mkdir(mount)
    run(["mount", "-o", "loop", truth, mount])
    try:
        outside = run(["sh", "-c", "find . -type f | sort | xargs sha256sum"], cwd=mount).stdout
    finally:
        run(["umount", mount])
        os.rmdir(mount)
    if "records" not in inside or inside.split() != outside.split():
        raise Failure(f"the guest sees {inside}, and restored was {outside}")


def plugged(machine, point, kind):
    """Restored images become other disks of the running guest, as the documentation says, one after the other."""
    guest = machine.guest
    folder = machine.place.path("plugged")
    truths, images = machine.restore(point), machine.restore(point, kind, folder)
    bus = guest.free_port()
    for name in NAMES:
        guest.monitor.call("blockdev-add", driver=kind, node_name="back0",
                           file={"driver": "file", "filename": images[name]})
        guest.monitor.call("device_add", driver="virtio-blk-pci", drive="back0", id="back0", bus=bus)
        try:
            expect_same_files(guest, truths[name], len(NAMES) + 1)
        finally:
            guest.monitor.call("device_del", id="back0")
            guest.monitor.wait("DEVICE_DELETED", device="back0")
            guest.delete_node("back0")
    guest.expect_writing()
    shutil.rmtree(folder)


def restores(place, program, cache, count, only=None):
    """`count` points of each kind of guest, frozen and not in turn. `only`: some kinds."""
    for kind in only or KINDS:
        machine = Machine(place, program, cache, f"restore-{kind}", disks_of(kind))
        for number in range(count):
            machine.is_frozen = number % 2 == 0
            point, *_ = machine.checked_point(is_increment=number > 0)
            last = last_records(machine, point)
            for new in FORMATS[:1] if count == 1 else FORMATS:
                said = boots(machine, point, last, new)
                plugged(machine, point, new)
                print(f"{machine.name:16} {point['consistency']:20} as {new:5}: the second guest {said}; "
                      "plugged into the first, its files are the same", flush=True)
            machine.expect_tidy()
        machine.remove()
