"""Points of a guest whose writer never stops, each way, each restored; now and then of the guest at rest,
where every byte counts."""

import statistics

from guests_machine import COLLECTION, KINDS, Machine, disks_of, reasons
from rig import Failure


def settings(machine):
    """(whether the guest is frozen, whether it may be paused) that a machine's points are taken with in turn."""
    pauses = (True,) if machine.way in ("reopen", "libvirt") else (True, False)
    return [(is_frozen, may_pause) for may_pause in pauses for is_frozen in (True, False)]


def take_points(machine, count, compare_each):
    """Takes `count` points of each way; every `compare_each`-th is also followed by one at rest."""
    figures = {}
    choices = settings(machine)
    total = count * len({may_pause for _, may_pause in choices})
    for number in range(total):
        machine.is_frozen, machine.may_pause = choices[number % len(choices)]
        try:
            point, seconds, longest = machine.checked_point(is_increment=number > 0)
            figures.setdefault((machine.way, machine.is_frozen), []).append(
                (seconds, longest, sum(disk["readBytes"] for disk in point["disks"])))
            if (number + 1) % compare_each == 0:
                machine.expect_increment(machine.compared_point())
        except Failure as failure:
            raise Failure(f"point {number} of {machine.name}, {machine.way}, "
                          f"{'frozen' if machine.is_frozen else 'not frozen'}: {failure}") from None
    for (way, is_frozen), found in figures.items():
        seconds, longest, read = zip(*found)
        print(f"{machine.name:16} {way:17} {'frozen' if is_frozen else 'not frozen':10} "
              f"{len(found):3} points: {statistics.median(seconds):.2f} s, "
              f"{int(statistics.median(read)) >> 20} MiB read; the writer waited "
              f"{statistics.median(longest):.0f} ms, {max(longest):.0f} ms at most", flush=True)


def remembers(machine):
    """A snapshot that is told nothing takes the same guest again."""
    point = machine.snapshot(words=["snapshot", COLLECTION, "--json", "--quiet"])
    machine.expect_increment(point)
    if {disk["name"] for disk in point["disks"]} != set(machine.guest.writer_disks):
        raise Failure(f"a snapshot without options took {point['disks']}")
    machine.expect_restorable(point, is_clean=False)


def points(place, program, cache, count, compare_each, only=None):
    """Points of every kind of guest. `only`: some kinds."""
    for kind in only or KINDS:
        machine = Machine(place, program, cache, kind, disks_of(kind))
        take_points(machine, count, compare_each)
        remembers(machine)
        machine.remove()


def host_disks(place, program, cache, rig_attach, count):
    """Disks of the host that a guest lives on: the guest is only held still while they are read."""
    disks = disks_of("raw")
    for disk in disks:
        disk.make(place.folder)
        disk.path = rig_attach(disk.path)
    machine = Machine(place, program, cache, "host-disks", disks)
    for number in range(count):
        machine.is_frozen = number % 2 == 0
        holder = (["--guest-agent", machine.guest.agent_socket] if machine.is_frozen
                  else ["--guest-pause", machine.guest.monitor_socket])
        after = machine.guest.mark()
        # An agent would be remembered.
        collection = "frozen" if machine.is_frozen else "paused"
        point = machine.snapshot(words=[
            "snapshot", collection, *(f"--disk={disk.name}={disk.path}" for disk in disks), *holder,
            "--max-freeze=30s", "--json", "--quiet"])
        before = machine.guest.mark()
        machine.guest.expect_alive()
        machine.expect_consistent(point)
        machine.expect_restorable(point, machine.is_frozen, after, before)
        print(f"host disks, {'frozen' if machine.is_frozen else 'paused'}: {point['consistency']}, "
              f"{ {disk['cut'] for disk in point['disks']} }, {reasons(point)}, the writer waited "
              f"{before.longest_milliseconds:.0f} ms", flush=True)
    machine.remove()
