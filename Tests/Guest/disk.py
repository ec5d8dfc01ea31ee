"""Disks of a test guest: what they are, their files, and how QEMU is told of them."""

import json
import os
from dataclasses import dataclass

from place import run


@dataclass
class Disk:
    """A disk with an ext4 of the same name.

    Attributes:
        name: of the device (its id and its serial number); the guest mounts it at /disks/NAME.
        format: raw or qcow2.
        has_filter: whether a `raw` node lies over it all the time.
        is_bare: whether the device is connected with the file itself; a raw image has a `raw` node otherwise.
        path: its file, or a block device; made in the guest's folder where it isn't given.
        content: a folder whose files it begins with.
    """

    name: str
    megabytes: int = 256
    format: str = "raw"
    has_filter: bool = False
    is_bare: bool = False
    has_iothread: bool = False
    path: str = ""
    content: str = ""

    @property
    def node(self):
        return f"node-{self.name}"

    @property
    def top(self):
        """The node that the device is connected with."""
        return f"top-{self.name}" if self.has_filter else self.node

    @property
    def has_raw_node(self):
        """Whether there is a node that can be given another file while the guest runs."""
        return self.has_filter or self.format == "raw" and not self.is_bare

    def make(self, folder):
        """Makes the file, unless the path of one was given."""
        if self.path:
            return
        self.path = os.path.join(folder, f"{self.name}.{self.format}")
        raw = os.path.join(folder, f"{self.name}.raw")
        make_file_system(raw, self.megabytes, self.content)
        if self.format != "raw":
            run(["qemu-img", "convert", "-q", "-f", "raw", "-O", self.format, raw, self.path])
            os.remove(raw)

    def block_node(self):
        """The argument of blockdev-add."""
        is_device = self.path.startswith("/dev/") and not self.path.startswith("/dev/shm/")
        file = {"driver": "host_device" if is_device else "file", "filename": self.path,
                "discard": "unmap"}
        node = {"driver": self.format, "file": file, "discard": "unmap"} if not self.is_bare else file
        node["node-name"] = self.node
        if self.has_filter:
            node = {"driver": "raw", "node-name": self.top, "file": node}
        return node

    def device(self, bus):
        """The argument of device_add."""
        values = {"driver": "virtio-blk-pci", "drive": self.top, "id": self.name,
                  "serial": self.name, "bus": bus}
        if self.has_iothread:
            values["iothread"] = f"thread-{self.name}"
        return values

    def words(self, bus):
        """For QEMU's command line."""
        thread = ["-object", f"iothread,id=thread-{self.name}"] if self.has_iothread else []
        return [*thread, "-blockdev", json.dumps(self.block_node()),
                "-device", json.dumps(self.device(bus))]

    def copy_raw(self, target):
        """Copies what the disk holds to a raw file, while the guest rests."""
        run(["qemu-img", "convert", "-q", "-U", "-f", self.format, "-O", "raw", self.path, target])


def make_file_system(path, megabytes, content=""):
    """Makes a sparse file with an ext4 that no background work of the kernel's writes to."""
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]
    run(["mkfs.ext4", "-q", "-F", *options, *(["-d", content] if content else []), path])
