"""Points of a libvirt domain whose writer never stops, through a session libvirtd; kills; its definition, kept in
the points; and what was restored, as a second domain and as another disk of the first."""

import json
import os
import re
import shutil
import signal
import time
from xml.etree import ElementTree

import guests_libvirt_troubles
import leftovers
from guests_kills import NOTICE, Killer
from guests_libvirt_troubles import FREEZES
from guests_machine import COLLECTION, NAMES, Machine, Run, reasons
from guests_points import take_points
from guests_restore import expect_going_on, expect_same_files
from disk import Disk
from libvirt_guest import LibvirtGuest, Session
from rig import Failure, run

PREFIX = "strobe-"
# Seconds until Strobe has to end when its domain is off.
END = 10


class Domain(Machine):
    """A libvirt domain with a repository of points of it."""

    def __init__(self, session, program, cache, name, disks):
        self.session = session
        super().__init__(session.place, program, cache, name, disks)

    def begin(self, disks, **more):
        self.guest = LibvirtGuest(self.session, disks, name=self.name, **more).boot()
        self.baseline = leftovers.Baseline(self.guest.monitor)

    @property
    def way(self):
        return "libvirt"

    def words(self, scratch=None):
        return ["snapshot", COLLECTION, "--libvirt", self.name, "--connect", self.session.socket_uri,
                "--freeze", "auto" if self.is_frozen else "none",
                "--scratch", scratch or self.scratch, "--json", "--quiet"]

    def restore(self, point, kind="raw", folder=None):
        """By the names that the guest has for its disks."""
        images = super().restore(point, kind, folder)
        return {name: images[target] for name, target in self.guest.targets.items() if target in images}

    def configuration(self):
        """What `show` prints of the last point's domain."""
        return self.command("show", f"{COLLECTION}@latest", "--config").stdout

    def backup(self):
        """The XML of the backup job that runs; empty where there is none."""
        return self.session.virsh("backup-dumpxml", self.name, check=False)

    # What has to hold.

    def expect_consistent(self, point, is_frozen=None):
        super().expect_consistent(point, is_frozen)
        if {disk["name"] for disk in point["disks"]} != set(self.guest.targets.values()):
            raise Failure(f"the disks {[disk['name'] for disk in point['disks']]} were taken")
        found = point["machine"]
        wanted = {"name": self.name, "way": "libvirt",
                  "uuid": self.session.virsh("domuuid", self.name).strip()}
        if wanted != {key: found[key] for key in wanted} or not found["hypervisor"].startswith("libvirt "):
            raise Failure(f"the point is of {found}, not of {wanted}")
        kept = ElementTree.fromstring(found["configuration"])
        if (kept.findtext("name"), kept.findtext("uuid")) != (wanted["name"], wanted["uuid"]):
            raise Failure(f"the point keeps another definition: {found['configuration'][:400]}")

    def expect_increment(self, point):
        super().expect_increment(point)
        for disk in point["disks"]:
            if disk["changeSource"] != "qemu-bitmap":
                raise Failure(f"{disk['name']} was found by {disk['changeSource']}")
            if disk["readBytes"] * 2 > disk["size"]:
                raise Failure(f"{disk['readBytes']} of the {disk['size']} bytes of {disk['name']} were read")

    def expect_tidy(self, generations=1):
        backup = self.backup()
        if backup:
            raise Failure(f"a backup job is left: {backup}")
        checkpoints = self.guest.checkpoints()
        if any(not name.startswith(PREFIX) for name in checkpoints) or len(checkpoints) > generations:
            raise Failure(f"checkpoints are left: {checkpoints}")
        super().expect_tidy(generations)

    def recover(self):
        if self.running and self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        # Not forgotten: libvirt would leave the checkpoints' bitmaps in the images.
        self.guest.disconnect()
        self.session.virsh("destroy", self.name, check=False)
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.mkdir(self.scratch)
        self.guest.start()
        self.guest.start_writer()

    def remove(self):
        self.guest.kill()
        for folder in (self.guest.folder, self.repository, self.restored, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)


class DomainKiller(Killer):
    """A domain whose snapshots are killed."""

    def next_point(self):
        point, *_ = self.machine.checked_point(is_increment=False)
        for disk in point["disks"]:
            if disk["changeSource"] != "qemu-bitmap" and not disk.get("scanReason"):
                raise Failure(f"{disk['name']} was read whole, and nothing says why")
        return reasons(point)

    def qemu(self):
        machine = self.machine
        self.choose()
        run_ = self.start()
        machine.guest.crash()
        begin = time.monotonic()
        status, _, errors = run_.wait(NOTICE)
        seconds = time.monotonic() - begin
        if status not in (0, 1, 3) or status == 1 and not errors.strip():
            raise Failure(f"QEMU died: strobe ended with status {status}: {errors.strip()[-400:]}")
        machine.guest.start()
        machine.guest.start_writer()
        whole = self.next_point()
        if set(whole) != set(machine.guest.targets.values()):
            raise Failure(f"bitmaps in use can't have outlived QEMU, and yet: {whole or 'increments'}")
        last = (errors.strip().splitlines() or ["no message"])[-1]
        return f"status {status} after {seconds:.2f} s ({last}); next: {whole}"


def remembers(machine):
    """A snapshot that is told nothing takes the same domain again, frozen."""
    machine.is_frozen = True
    after = machine.guest.mark()
    point = machine.snapshot(words=["snapshot", COLLECTION, "--json", "--quiet"])
    before = machine.guest.mark()
    machine.expect_consistent(point)
    machine.expect_increment(point)
    machine.expect_tidy()
    machine.expect_restorable(point, True, after, before)


def is_read_when_off(machine):
    """A domain that is off is taken by its images; the chain goes on there, and again when it runs."""
    machine.is_frozen = False
    machine.guest.crash()
    point = machine.snapshot(words=["snapshot", COLLECTION, "--json", "--quiet"])
    if point["machine"]["way"] != "images" or not point["parent"]:
        raise Failure(f"taken by {point['machine']}, parent {point['parent']}")
    for disk in point["disks"]:
        if disk["changeSource"] != "scan" or disk.get("newChainReason"):
            raise Failure(f"{disk['name']} off: {disk['changeSource']}, {disk.get('newChainReason')}")
    status, output, _ = Run(machine, ["snapshot", COLLECTION, "--freeze", "guest", "--json", "--quiet"]).wait()
    if status != 3 or "is off" not in " ".join(json.loads(output)["consistencyReasons"]):
        raise Failure(f"off, and to be frozen: status {status}, {output}")
    point = json.loads(output)
    for name, image in machine.restore(point).items():
        path = machine.guest.disk(name).path
        run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", path, image])
    machine.guest.start()
    machine.guest.start_writer()
    again, *_ = machine.checked_point(is_increment=False)
    whole = reasons(again)
    if again["parent"] != point["id"] or set(whole) != set(machine.guest.targets.values()):
        raise Failure(f"after {point['id']}: {again['parent']}, {whole}")
    machine.checked_point()


def renamed(description, name):
    """The definition of a second machine beside the first, as the documentation says."""
    changed = re.sub(r"<name>.*?</name>", f"<name>{name}</name>", description, count=1)
    return re.sub(r"\s*<uuid>.*?</uuid>|\s*<mac [^>]*>", "", changed)


def is_defined_again(machine):
    """libvirt takes what `show --config` prints: as it is, and under another name."""
    session, text = machine.session, machine.configuration()
    path = machine.place.path("config.xml")
    session.define(path, text)
    session.define(path, renamed(text, "again"))
    first, second = (session.virsh("dumpxml", "--inactive", name) for name in (machine.name, "again"))
    session.virsh("undefine", "again")
    if normal(renamed(first, "again")) != normal(renamed(second, "again")):
        raise Failure(f"the definition changed: {first} became {second}")


def normal(description):
    return ElementTree.canonicalize(description, strip_text=True)


def second_domain(machine):
    """What `restore --format qcow2 --write-config` makes boots beside the first: the writer goes on."""
    machine.is_frozen = True
    point, *_ = machine.checked_point()
    last = [int(word) for word in machine.expect_restorable(point, True).says.split()[:len(NAMES)]]
    folder, config = machine.place.path("second-images"), machine.place.path("second.xml")
    machine.command("restore", f"{COLLECTION}@latest", "--to", folder, "--format", "qcow2",
                    "--write-config", config, "--quiet")
    os.chmod(folder, 0o755)
    machine.session.own(folder)
    images = {name: os.path.join(folder, f"{target}.qcow2")
              for name, target in machine.guest.targets.items()}
    with open(config, encoding="utf-8") as file:
        description = file.read()
    if description.strip() != machine.configuration().strip():
        raise Failure(f"--write-config wrote {description}")
    second = LibvirtGuest(
        machine.session, [Disk(name, format="qcow2", path=path) for name, path in images.items()],
        name="second", cache=machine.guest.cache)
    for name, path in images.items():
        run(["qemu-img", "check", "-q", path])
        description = description.replace(machine.guest.disk(name).path, path)
    # It leaves the second the processor.
    machine.session.virsh("suspend", machine.name)
    try:
        second.boot(renamed(description.replace(machine.guest.folder, second.folder), "second"))
        said = expect_going_on(machine.place, second, last, second.kill)
    finally:
        machine.session.virsh("resume", machine.name)
    machine.guest.expect_writing()
    os.remove(config)
    shutil.rmtree(folder)
    return said


def attached(machine):
    """A restored image becomes another disk of the domain that it was taken of."""
    machine.is_frozen = True
    point, *_ = machine.checked_point()
    truth = machine.restore(point)["os"]
    folder = machine.place.path("attached")
    image = machine.restore(point, "qcow2", folder)["os"]
    os.chmod(folder, 0o755)
    machine.session.own(folder)
    machine.session.virsh("attach-disk", machine.name, image, "vdz", "--driver", "qemu",
                          "--subdriver", "qcow2")
    try:
        expect_same_files(machine.guest, truth, len(machine.guest.disks) + 1)
    finally:
        machine.session.virsh("detach-disk", machine.name, "vdz")
    # A disk of that name is not in the points, nor is the domain spoilt for the next.
    end = time.monotonic() + 10
    while "vdz" in machine.session.virsh("domblklist", machine.name):
        if time.monotonic() > end:
            raise Failure("the disk isn't detached")
        time.sleep(0.05)
    machine.expect_increment(machine.checked_point()[0])
    shutil.rmtree(folder)


def dies_frozen(machine):
    """QEMU dies while the guest is frozen: strobe ends soon; where strobe died first, `strobe thaw` clears up."""
    machine.is_frozen = True
    problems = []
    for is_alone in (False, True):
        run_ = machine.start()
        while not os.path.isdir(FREEZES) or not os.listdir(FREEZES):
            if run_.process.poll() is not None:
                raise Failure(f"nothing was frozen: {run_.wait()}")
            time.sleep(0.001)
        if is_alone:
            # The freeze itself has to have begun, and the guardian to be there.
            time.sleep(0.05)
            while end_all(machine.program):
                time.sleep(0.01)
        machine.guest.crash()
        begin = time.monotonic()
        run_.wait(NOTICE)
        seconds = time.monotonic() - begin
        if seconds > END:
            problems.append(f"strobe took {seconds:.1f} s to end when the domain was off")
        thaw = machine.command("thaw", check=False)
        left = os.listdir(FREEZES)
        if thaw.returncode != 0 or left:
            problems.append(f"thaw, the domain off: status {thaw.returncode}, {thaw.stderr.strip()}; left: {left}")
        machine.guest.start()
        machine.guest.start_writer()
        # A guardian that still asks for the domain, and its record.
        end_all(machine.program)
        machine.command("thaw")
        machine.checked_point(is_increment=False)
    if problems:
        raise Failure("; ".join(problems))


def end_all(program):
    """SIGKILL to whatever runs the test's own copy of the program: the engine and its guardian. Returns how many.

    One that has ended but wasn't waited for isn't counted: it has no program any more.
    """
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/exe") == program:
                os.kill(int(name), signal.SIGKILL)
                count += 1
        except OSError:
            continue
    return count


def libvirt(place, program, cache, count, compare_each, rounds, generator, is_small=False, words=None):
    """Everything of a domain. `rounds`: kills of each kind. Returns how many failed.

    `is_small`: no second domain, and only SIGKILL to strobe. `words`: parts of troubles' names.
    """
    session = Session(place)
    machine = Domain(session, program, cache, "domain", [Disk(name, format="qcow2") for name in NAMES])
    failures = 0
    take_points(machine, count, compare_each)
    for what in (remembers, is_defined_again, is_read_when_off, *(() if is_small else (second_domain, attached, dies_frozen))):
        try:
            print(f"{machine.name}: {what.__name__.replace('_', ' ')}: {what(machine) or 'yes'}", flush=True)
        except Failure as failure:
            failures += 1
            print(f"{machine.name}: {what.__name__.replace('_', ' ')}: FAILED: {failure}", flush=True)
            machine.recover()
    failures += guests_libvirt_troubles.troubles(machine, generator, words)
    return failures + kills(DomainKiller(machine, generator), rounds, is_small)


def kills(killer, rounds, is_small):
    """SIGKILL and SIGTERM to strobe, SIGKILL to QEMU. Returns how many failed."""
    machine, failures = killer.machine, 0
    kinds = {"SIGKILL": lambda: killer.engine(signal.SIGKILL), "QEMU": killer.qemu,
             "SIGTERM": lambda: killer.engine(signal.SIGTERM)}
    kinds = dict(list(kinds.items())[:1 if is_small else None])
    for number in range(rounds * len(kinds)):
        what = list(kinds)[number % len(kinds)]
        try:
            print(f"kill {what:7} {machine.name}: {kinds[what]()}", flush=True)
        except Failure as failure:
            failures += 1
            print(f"kill {what:7} {machine.name}, round {number}, frozen {machine.is_frozen}: "
                  f"FAILED: {failure}", flush=True)
            machine.recover()
    machine.compared_point()
    machine.remove()
    return failures
