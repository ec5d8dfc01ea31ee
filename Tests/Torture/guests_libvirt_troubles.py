"""Whatever else may go wrong with a libvirt domain while, before and after a point of it is taken; each once.

After each the guest has to live and write, nothing may be left in QEMU, in libvirt and in the scratch folder, and
the next point has to be an increment where the record of changes can be proved, else whole."""

import contextlib
import os
import signal
import subprocess
import threading
import time

from guests_machine import COLLECTION, Run, reasons
from guests_troubles import NOTICE, Ended, Provoking
from rig import Failure, run

# Where Strobe notes what it has frozen; of this mount namespace only.
FREEZES = "/run/strobe/frozen"
BACKUP = """<domainbackup mode='pull'><server transport='unix' socket='{folder}/socket'/><disks>
<disk name='vda' backup='yes' type='file'><scratch file='{folder}/vda'/></disk><disk name='vdb' backup='no'/>
</disks></domainbackup>"""


class DomainTroubles(Provoking):
    """Of a domain that Strobe takes through libvirt.

    Attributes:
        next: what the point after the trouble has to be: "an increment", "whole", or None where both may be right.
    """

    within = 1.0

    def __init__(self, machine, generator):
        super().__init__(machine, generator)
        self.session, self.name = machine.session, machine.name
        self.next = None

    def virsh(self, *words):
        """What somebody asks of libvirt, which may refuse."""
        result = self.session.run("virsh", "-q", "-c", self.session.uri, *words, check=False)
        return "done" if result.returncode == 0 else f"refused ({' '.join(result.stderr.split())})"

    def held(self, action):
        """Does something while a snapshot, which is held up meanwhile, reads the disks and the guest runs."""
        for _ in range(8):
            run_ = self.machine.start()
            self.wait_for(lambda: run_.process.poll() is not None
                          or self.own_exports() and not (os.path.isdir(FREEZES) and os.listdir(FREEZES)))
            run_.process.send_signal(signal.SIGSTOP)
            try:
                if run_.process.poll() is None and self.own_exports():
                    said = action()
                    run_.process.send_signal(signal.SIGCONT)
                    return self.keep(Ended(run_.wait(NOTICE))), said
            finally:
                run_.process.send_signal(signal.SIGCONT)
            run_.wait(NOTICE)
        raise Failure("every snapshot was over too soon")

    def hurried(self):
        """A snapshot whose agent has little time."""
        return Ended(Run(self.machine, [*self.machine.words(), "--agent-timeout", "2s"]).wait(NOTICE))

    def start_again(self):
        self.guest.start()
        self.guest.start_writer()

    # libvirtd.

    def when_libvirtd_dies_and_is_started_meanwhile(self):
        def again():
            self.session.crash()
            self.session.start()
        ended, _ = self.held(again)
        self.next = "an increment"
        return str(ended)

    def when_libvirtd_dies_at_any_moment(self):
        said = []
        for _ in range(4):
            run_ = self.machine.start()
            time.sleep(self.random.random() * self.within)
            self.session.crash()
            begin = time.monotonic()
            try:
                ended = Ended(run_.wait(NOTICE))
            finally:
                self.session.start()
            said.append(f"{self.keep(ended)} after {time.monotonic() - begin:.1f} s")
            self.guest.expect_writing()
        self.next = "an increment"
        return "; ".join(said)

    def when_libvirtd_dies_while_the_guest_is_frozen(self):
        """Whoever owes the thaw has to wait for the next libvirtd."""
        said = []
        for seconds in (0.3, 0.6, 0.9):
            run_ = self.machine.start()
            # A libvirtd that was just started may not have found the agent yet.
            self.wait_for(lambda: run_.process.poll() is not None
                          or os.path.isdir(FREEZES) and os.listdir(FREEZES))
            time.sleep(seconds)
            self.session.crash()
            time.sleep(3)
            self.session.start()
            said.append(f"{self.keep(Ended(run_.wait(NOTICE)))}")
            self.guest.expect_writing()
        self.next = "an increment"
        return "; ".join(said)

    def when_libvirtd_hangs_for_a_while(self):
        def hang():
            self.session.process.send_signal(signal.SIGSTOP)
            time.sleep(3)
            self.session.process.send_signal(signal.SIGCONT)
        ended, _ = self.during(hang)
        self.next = "an increment"
        return str(ended)

    # The domain.

    def when_the_domain_is_destroyed_meanwhile(self):
        ended, said = self.held(self.destroy)
        ended.expect_failure("ended", "off", "read")
        self.start_again()
        return f"{said}; {ended}"

    def destroy(self):
        self.guest.disconnect()
        return self.virsh("destroy", self.name)

    def when_the_domain_ended_in_order(self):
        """Two disks of another run of QEMU (decision 16)."""
        self.guest.quit()
        self.start_again()
        self.next = "whole"
        return "started again"

    def when_the_domain_stands_still(self):
        """It is taken as it is, and stays so; its agent can't answer."""
        self.virsh("suspend", self.name)
        try:
            ended = self.hurried()
            state = self.session.virsh("domstate", self.name).strip()
        finally:
            self.virsh("resume", self.name)
        if state != "paused":
            raise Failure(f"the domain was paused, and is {state}")
        self.next = "an increment"
        return self.without_agent(ended)

    def when_the_domain_is_saved_meanwhile(self):
        ended, said = self.held(lambda: self.virsh("save", self.name, self.machine.place.path("saved")))
        if not said.startswith("refused"):
            raise Failure(f"libvirt saved a domain with a backup job; {ended}")
        self.next = "an increment"
        return f"{said}; {ended}"

    # Disks.

    def blockresize(self, more):
        disk = self.guest.disk("data")
        said = self.virsh("blockresize", self.name, self.guest.targets["data"], f"{disk.megabytes + more}MiB")
        if said == "done":
            disk.megabytes += more
        return said

    def when_a_disk_grew(self):
        said = self.blockresize(33)
        point = self.machine.compared_point()
        size = next(found["size"] for found in point["disks"] if found["name"] == self.guest.targets["data"])
        if size != self.guest.disk("data").megabytes << 20:
            raise Failure(f"the point's disk has {size} bytes")
        return f"resizing: {said}; {reasons(point) or 'an increment'}"

    def when_a_disk_grows_meanwhile(self):
        ended, said = self.held(lambda: self.blockresize(17))
        point = self.machine.compared_point()
        return f"resizing: {said}; {ended}; then {reasons(point) or 'an increment'}"

    @contextlib.contextmanager
    def another_disk(self):
        """The words that attach it."""
        image = os.path.join(self.guest.folder, "more.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", image, "32M"])
        self.session.own(image)
        os.chown(image, os.stat(self.guest.folder).st_uid, -1)
        yield ["attach-disk", self.name, image, "vdy", "--driver", "qemu", "--subdriver", "qcow2"]
        os.remove(image)

    def detach(self):
        said = self.virsh("detach-disk", self.name, "vdy")
        if said == "done":
            self.wait_for(lambda: "vdy" not in self.session.virsh("domblklist", self.name))
        return said

    def when_a_disk_is_attached_and_detached(self):
        with self.another_disk() as attach:
            self.virsh(*attach)
            more = self.attempt()
            names = [disk["name"] for disk in more.point["disks"]] if more.point else str(more)
            self.detach()
        if "vdy" not in names:
            raise Failure(f"the new disk was not taken: {names}")
        self.next = "an increment"
        return f"taken: {names}"

    def when_a_disk_is_attached_and_detached_meanwhile(self):
        with self.another_disk() as attach:
            first, attached = self.held(lambda: self.virsh(*attach))
            second, detached = self.held(self.detach)
            third = self.detach() if detached != "done" else "gone"
            self.wait_for(lambda: "vdy" not in self.session.virsh("domblklist", self.name))
        self.next = "an increment"
        return f"attaching: {attached}; {first}; detaching: {detached}; {second}; {third}"

    # Jobs and checkpoints.

    @contextlib.contextmanager
    def foreign_job(self):
        folder = self.machine.place.make("theirs")
        self.session.own(folder)
        path = os.path.join(folder, "backup.xml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(BACKUP.format(folder=folder))
        self.session.virsh("backup-begin", self.name, path)
        try:
            yield folder
        finally:
            self.session.virsh("domjobabort", self.name)
            self.wait_for(lambda: not self.machine.backup())

    def when_somebody_elses_backup_runs(self):
        with self.foreign_job() as folder:
            said = self.attempt().expect_failure("another job")
            if folder not in self.machine.backup():
                raise Failure("the other's job is gone")
        self.next = "an increment"
        return said

    def when_the_job_is_aborted_meanwhile(self):
        ended, said = self.held(lambda: self.virsh("domjobabort", self.name))
        ended.expect_failure("backup job", "can't be opened")
        self.machine.expect_tidy()
        self.next = "an increment"
        return f"{said}; {ended}"

    def when_two_collections_are_taken_at_once(self):
        words = self.machine.words()
        words[words.index(COLLECTION)] = "other"
        first, second = Run(self.machine, self.machine.words()), None
        path = self.machine.place.path("other")
        with open(path, "wb") as output:
            second = subprocess.run([self.machine.program, *words], stdin=subprocess.DEVNULL, stdout=output,
                                    stderr=output, env=self.machine.environment(), timeout=NOTICE, check=False)
        ended = Ended(first.wait(NOTICE))
        if second.returncode not in (0, 1, 3):
            raise Failure(f"the second ended with status {second.returncode}: {Run.read(path)[-300:]}")
        self.keep(ended)
        self.machine.snapshot(words=words)
        self.machine.expect_tidy(generations=2)
        known = self.machine.command("list", "other", "--json").stdout
        for name in self.guest.checkpoints():
            if name.split("-")[2] in known:
                self.session.virsh("checkpoint-delete", self.name, name)
        self.next = "an increment"
        return f"{ended}; the second: status {second.returncode}"

    def own_checkpoint(self):
        found = self.guest.checkpoints()
        if len(found) != 1:
            raise Failure(f"the checkpoints are {found}")
        return found[0]

    def when_the_checkpoint_was_deleted(self):
        self.session.virsh("checkpoint-delete", self.name, self.own_checkpoint())
        self.next = "whole"
        return "deleted"

    def when_the_checkpoint_was_forgotten(self):
        """The bitmaps, which nobody touched, prove what changed."""
        self.session.virsh("checkpoint-delete", self.name, self.own_checkpoint(), "--metadata")
        self.next = "an increment"
        return "forgotten"

    def when_the_checkpoint_was_forgotten_and_a_bitmap_removed(self):
        name = self.own_checkpoint()
        self.session.virsh("checkpoint-delete", self.name, name, "--metadata")
        self.remove_bitmap(name)
        return f"{self.whole_after()}"

    def when_a_bitmap_was_removed(self):
        self.remove_bitmap(self.own_checkpoint())
        return self.whole_after()

    def remove_bitmap(self, name):
        nodes = self.guest.monitor.call("query-named-block-nodes", flat=True)
        node = next(node["node-name"] for node in nodes
                    if any(bitmap.get("name") == name for bitmap in node.get("dirty-bitmaps", [])))
        self.guest.monitor.call("block-dirty-bitmap-remove", node=node, name=name)

    def when_the_checkpoint_is_deleted_meanwhile(self):
        """The parent's, and the new one."""
        def delete():
            return [self.virsh("checkpoint-delete", self.name, name) for name in self.guest.checkpoints()]
        ended, said = self.held(delete)
        return f"{said}; {ended}"

    def when_the_checkpoint_is_forgotten_meanwhile(self):
        def forget():
            return [self.virsh("checkpoint-delete", self.name, name, "--metadata")
                    for name in self.guest.checkpoints()]
        ended, said = self.held(forget)
        return f"{said}; {ended}"

    # The scratch space.

    def when_the_scratch_space_is_too_small(self):
        self.next = "an increment"
        with self.small_scratch_space(20) as small:
            return self.attempt(small).expect_failure("scratch", "space")

    def when_the_scratch_space_runs_out(self):
        """Somebody else fills it while Strobe is held up: that costs the point, never the guest."""
        size = sum(disk.megabytes for disk in self.guest.disks) + 64
        with self.small_scratch_space(size) as small, self.overwriting():
            usual, self.machine.scratch = self.machine.scratch, small
            filler = os.path.join(small, "filler")

            def fill():
                with contextlib.suppress(OSError), open(filler, "wb") as file:
                    while True:
                        file.write(bytes(1 << 20))
                self.wait_for(lambda: self.session.virsh("domstate", self.name).strip() == "paused")
                return "the guest was stopped"
            try:
                ended, said = self.held(fill)
            finally:
                self.machine.scratch = usual
                os.remove(filler)
            self.guest.expect_alive()
            self.expect_no_errors()
        ended.expect_failure("scratch")
        self.next = "an increment"
        return f"{said}; {ended}"

    # The agent.

    def when_the_agent_hangs(self):
        self.guest.command("kill -STOP $(cat /run/agent.pid)")
        try:
            return self.without_agent(self.hurried())
        finally:
            self.guest.command("kill -CONT $(cat /run/agent.pid)")

    def when_the_agent_freezes_late(self):
        """It has been given up by then; the guest must not stay frozen."""
        self.guest.command("cp /bin/fsfreeze-hook /run/hook; echo '[ $1 = thaw ] || sleep 6' >>/bin/fsfreeze-hook")
        try:
            ended = self.without_agent(self.hurried())
            self.guest.expect_writing()
        finally:
            self.guest.command("cp /run/hook /bin/fsfreeze-hook")
        return ended

    def when_somebody_else_thaws(self):
        """All the time: what claims to be frozen has to have been."""
        stop, count = threading.Event(), []

        def thaw():
            while not stop.is_set():
                count.append(self.virsh("domfsthaw", self.name))
        thread = threading.Thread(target=thaw)
        thread.start()
        try:
            ended = self.attempt()
        finally:
            stop.set()
            thread.join()
        if ended.point:
            self.machine.expect_restorable(
                ended.point, is_clean=ended.point["consistency"] == "FileSystemConsistent")
        return f"{ended}, while it was thawed {len(count)} times"


def one_trouble(machine, troubles, name):
    """Meets one trouble; then everything has to work. Returns what came of it."""
    machine.is_frozen, troubles.next = True, None
    said = getattr(troubles, name)()
    machine.guest.expect_writing()
    machine.guest.expect_alive()
    point, *_ = machine.checked_point(is_increment=False)
    whole = reasons(point)
    if troubles.next and (troubles.next == "whole") != bool(whole):
        raise Failure(f"{said}; the next point isn't {troubles.next}: {whole or 'an increment'}")
    return f"{said}; next: {whole or 'an increment'}"


def troubles(machine, generator, words=None):
    """Every trouble. `words`: parts of their names. Returns how many failed."""
    failures = 0
    provoking = DomainTroubles(machine, generator)
    for name in provoking.names(words):
        title = name.removeprefix("when_").replace("_", " ")
        try:
            print(f"{machine.name}: {title}: {one_trouble(machine, provoking, name)}", flush=True)
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            failures += 1
            print(f"{machine.name}: {title}: FAILED: {failure}", flush=True)
            if provoking.session.process.poll() is not None:
                provoking.session.start()
            machine.recover()
    return failures
