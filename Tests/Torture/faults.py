#!/usr/bin/env python3
"""Makes every system call of strobe fail, one at a time, and checks what comes of it.

A command is run once under strace, and its calls are counted. Then it is run again and again from the same
state, each time with another call that answers EIO, ENOSPC, EMFILE, ENOMEM, EINTR (what the call can answer), or in which the
process is killed. After each:

  the command succeeded, and what it says is true; or it failed with a message that names object and reason.
    It neither crashed nor hung
  every point is there and restores to what it was; the one in flight is absent or whole
  nothing is left: frozen file systems, guardians, records, half restored files
  the next command works, and after it and `strobe gc` there are no temporary files and no useless objects

Then commands whose reads and writes are short and interrupted at random places (short.c), and disks below that
can't be read or written to (below.py).

Exit status: 0 everything held, 1 something didn't, 2 wrong usage."""

import argparse
import os
import random
import shutil
import sys
import time

import below
from fault_bench import SCENARIOS, TELL, Bench
from injection import Fault, all_faults, needs
from rig import Failure, Rig, enter_namespace
from upkeep import Program, World, compile_library


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", required=True, metavar="PATH", help="the program")
    parser.add_argument("--each", type=int, metavar="N",
                        help="of the calls with the same name and the same kind of object only so many")
    parser.add_argument("--faults", type=int, metavar="N",
                        help="of each scenario, chosen at random (default: all)")
    parser.add_argument("--scenarios", default=",".join([*SCENARIOS, "short", "below"]), metavar="S,S",
                        help=f"of {','.join(SCENARIOS)},short,below (default: all)")
    parser.add_argument("--short", type=int, default=150, metavar="N",
                        help="commands with short reads and writes (default: 150)")
    parser.add_argument("--fault", metavar="CALL:ERRNO:N", help="only this one: as it was printed")
    parser.add_argument("--seed", type=int, metavar="N", help="default: random")
    parser.add_argument("--failures", type=int, default=8, metavar="N",
                        help="give up a scenario after so many (default: 8)")
    values = parser.parse_args()
    values.scenarios = values.scenarios.split(",")
    for name in values.scenarios:
        if name not in (*SCENARIOS, "short", "below"):
            parser.error(f"there is no scenario {name}")
    return values


def choose(places, values, generator):
    faults = all_faults(places, values.each)
    if values.fault:
        call, code, number = values.fault.split(":")
        return [Fault(call, code, int(number))]
    if values.faults is None or values.faults >= len(faults):
        return faults
    # By call first: the many looks at sysfs must not crowd out the one rename.
    calls = sorted({fault.call for fault in faults})
    chosen = []
    for call in generator.choices(calls, k=values.faults):
        chosen.append(generator.choice([fault for fault in faults if fault.call == call]))
    return chosen


def scenario(bench, name, values, generator):
    """Runs all faults of a scenario. Returns how many failed."""
    make = SCENARIOS[name]
    bench.reset()
    if make(bench).words[0] not in bench.program.commands:
        print(f"{name:9} the program has no such command", flush=True)
        return 0
    result, places = bench.tracer.places(make(bench).words)
    if result.status != 0:
        raise Failure(f"{name} without a fault: status {result.status}: {result.errors[-300:]}")
    bench.reference = bench.told(result.output) if make(bench).words[0] in TELL else None
    begin = time.monotonic()
    bench.ends.clear()
    made = missed = failed = 0
    try:
        for fault in choose(places, values, generator):
            made += 1
            hits, failure = one_fault(bench, make, fault)
            missed += not hits
            failed += failure is not None
            if failure:
                print(f"{name:9} {fault} FAILED: {failure}; at {hits[:2]}", flush=True)
            if failed >= values.failures:
                break
            if made % 200 == 0:
                print(f"{name:9} {made} faults so far, {failed} FAILED", flush=True)
    finally:
        # Also of a run that is ended before.
        ends = ", ".join(f"{count} {end}" for end, count in sorted(bench.ends.items()))
        print(f"{name:9} {made} faults in {len(places)} places ({missed} not reached): {ends}; "
              f"{failed} FAILED, {time.monotonic() - begin:.0f} s", flush=True)
    return failed


def one_fault(bench, make, fault):
    """Returns the calls that failed, as strace has them, and what doesn't hold then, or None."""
    bench.reset()
    hits = []
    try:
        result = bench.tracer.run(make(bench).words, "-e", f"trace={fault.call}", "-e", fault.inject)
        hits = result.hits
        bench.judge(make, fault, result)
    except Failure as failure:
        return hits, failure
    return hits, None


def short_calls(rig, values, generator):
    """Commands whose reads and writes do less than asked. Returns how many failed."""
    copied = rig.path("strobe-short")
    shutil.copy2(os.path.abspath(values.strobe), copied)
    program = Program(copied, os.path.join(rig.host, "short"), compile_library(rig, "short"))
    program.run("init")
    world = World(rig, program, generator, sizes=(8, 6, 10))
    begin = time.monotonic()
    points = 0
    for number in range(values.short):
        program.more["STROBE_TORTURE_SEED"] = str(generator.randrange(1 << 32))
        plan = world.choose()
        try:
            new = world.run_whole(plan)
            points += world.check_some(1, new)
        except Failure as failure:
            print(f"short     command {number}, {plan.name}, "
                  f"{program.more['STROBE_TORTURE_SEED']}: FAILED: {failure}", flush=True)
            return 1
    program.preload = None
    world.check_at_rest()
    print(f"short     {values.short} commands with short and interrupted calls, {points} points "
          f"compared: OK, {time.monotonic() - begin:.0f} s", flush=True)
    return 0


def torture(values, seed):
    rig = Rig("test-torture-faults", host_size=2 << 30)
    failures = 0
    try:
        needs("strace")
        bench = Bench(rig, os.path.abspath(values.strobe), random.Random(f"{seed}"))
        for name in values.scenarios:
            generator = random.Random(f"{seed} {name}")
            if name == "short":
                failures += short_calls(rig, values, generator)
            elif name == "below":
                failures += below.torture(rig, bench.program.path, generator)
            else:
                failures += scenario(bench, name, values, generator)
        for text, count in bench.notes.most_common():
            print(f"# {count}: {text}", flush=True)
    except Failure as failure:
        failures += 1
        print(f"FAILED: {failure}", flush=True)
    finally:
        rig.clean()
    return failures


def main():
    values = arguments()
    enter_namespace()
    seed = values.seed if values.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}; {values.strobe}", flush=True)
    failures = torture(values, seed)
    verdict = "everything held" if failures == 0 else f"{failures} FAILED"
    print(f"# seed {seed}: {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
