"""Another, smaller client of QEMU's: takes an instant of a guest's disks, each of the ways that Strobe has.

It shows what the rigs can see and what they can't miss while nothing of Strobe runs. Full copies only.

  reopen              a raw filter that is there all the time gets a copy-before-write filter below it
  copy-before-write   the same filter, put below the device while the processor is stopped
  backup-job          a job of QEMU's that copies what the guest overwrites (sync=none)
"""

import contextlib
import os

from place import Failure, run

WAYS = ("reopen", "copy-before-write", "backup-job")


class Instant:
    """One instant of some disks of a guest, which is held until `close`."""

    def __init__(self, guest, names, way, scratch, freeze):
        self.guest, self.monitor, self.scratch = guest, guest.monitor, scratch
        self.disks = [guest.disk(name) for name in names]
        self.undoing = contextlib.ExitStack()
        self.socket = os.path.join(scratch, "nbd.sock")
        try:
            getattr(self, "prepare_" + way.replace("-", "_"))()
            with self.frozen() if freeze else contextlib.nullcontext():
                getattr(self, "cut_" + way.replace("-", "_"))()
            self.export("fleece" if way == "backup-job" else "snapshot")
        except Failure:
            self.close()
            raise

    @contextlib.contextmanager
    def frozen(self):
        agent = self.guest.agent()
        try:
            agent.call("guest-fsfreeze-freeze")
            yield
        finally:
            agent.call("guest-fsfreeze-thaw")
            agent.close()

    def add(self, **node):
        self.monitor.call("blockdev-add", **node)
        self.undoing.callback(self.guest.delete_node, node["node_name"])

    def add_scratch(self, disk, name, **more):
        """A qcow2 node for what the guest overwrites."""
        path = os.path.join(self.scratch, f"{name}.qcow2")
        size = self.image_size(disk)
        run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)])
        self.undoing.callback(os.remove, path)
        self.add(driver="qcow2", node_name=name, file={"driver": "file", "filename": path}, **more)

    def image_size(self, disk):
        nodes = self.monitor.call("query-named-block-nodes", flat=True)
        return next(node["image"]["virtual-size"] for node in nodes if node["node-name"] == disk.node)

    def add_filters(self):
        for disk in self.disks:
            self.add_scratch(disk, f"scratch-{disk.name}")
            self.add(driver="copy-before-write", node_name=f"filter-{disk.name}", file=disk.node,
                     target=f"scratch-{disk.name}", on_cbw_error="break-snapshot")

    prepare_reopen = add_filters

    def cut_reopen(self):
        self.reopen([f"filter-{disk.name}" for disk in self.disks])
        self.undoing.callback(self.reopen, [disk.node for disk in self.disks])

    def reopen(self, below):
        self.monitor.call("blockdev-reopen", options=[
            {"driver": "raw", "node-name": disk.top, "file": node}
            for disk, node in zip(self.disks, below)])

    def prepare_copy_before_write(self):
        """Nothing: the filters may not miss a write, so they are made while the processor is stopped."""

    def cut_copy_before_write(self):
        self.monitor.call("stop")
        try:
            self.add_filters()
            for disk in self.disks:
                self.connect_device(disk, f"filter-{disk.name}")
                self.undoing.callback(self.connect_device, disk, disk.top)
        finally:
            self.monitor.call("cont")

    def connect_device(self, disk, node):
        self.monitor.call("qom-set", path=f"/machine/peripheral/{disk.name}/virtio-backend",
                          property="drive", value=node)

    def prepare_backup_job(self):
        for disk in self.disks:
            self.add_scratch(disk, f"fleece-{disk.name}", backing=disk.top)

    def cut_backup_job(self):
        self.monitor.transaction(*(
            ("blockdev-backup", {"job-id": f"job-{disk.name}", "device": disk.top, "sync": "none",
                                 "target": f"fleece-{disk.name}", "auto-dismiss": False})
            for disk in self.disks))
        for disk in self.disks:
            self.undoing.callback(self.end_job, f"job-{disk.name}")

    def end_job(self, job):
        self.monitor.call("job-cancel", id=job)
        self.monitor.wait("JOB_STATUS_CHANGE", id=job, status="concluded")
        self.monitor.call("job-dismiss", id=job)

    def export(self, kind):
        if kind == "snapshot":
            for disk in self.disks:
                self.add(driver="snapshot-access", node_name=f"snapshot-{disk.name}",
                         file=f"filter-{disk.name}")
        self.monitor.call("nbd-server-start", addr={"type": "unix", "data": {"path": self.socket}})
        self.undoing.callback(self.monitor.call, "nbd-server-stop")
        for disk in self.disks:
            self.monitor.call("block-export-add", type="nbd", id=f"export-{disk.name}",
                              name=disk.name, node_name=f"{kind}-{disk.name}", writable=False)
            self.undoing.callback(self.end_export, f"export-{disk.name}")

    def end_export(self, name):
        self.monitor.call("block-export-del", id=name, mode="hard")
        self.monitor.wait("BLOCK_EXPORT_DELETED", id=name)

    def copy(self, folder):
        """Copies the disks to raw files; returns their paths."""
        paths = []
        for disk in self.disks:
            paths.append(os.path.join(folder, f"{disk.name}.raw"))
            run(["nbdcopy", f"nbd+unix:///{disk.name}?socket={self.socket}", paths[-1]])
        return paths

    def close(self):
        self.undoing.close()


def take(guest, names, way, folder, freeze=False):
    """Takes an instant and copies it; returns the paths of raw images in `folder`."""
    instant = Instant(guest, names, way, folder, freeze)
    try:
        return instant.copy(folder)
    finally:
        instant.close()
