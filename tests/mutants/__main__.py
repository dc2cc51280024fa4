"""Plant the faults of a list and report which of them survive: ``python -m tests.mutants [whole|kit]``."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.planting import LISTS, Copy, Fault, Outcome, read

ALL_SECONDS = 1_800.0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("list", nargs="?", choices=[*LISTS], default="whole")
    parser.add_argument("--jobs", type=int, default=2, help="copies to work in at the same time")
    parser.add_argument("--only", default="", help="only faults whose file or description has this")
    parser.add_argument("--least", type=float, default=0.95, help="the share that must be found")
    options = parser.parse_args()
    faults = [
        fault
        for fault in read(options.list)
        if options.only in fault.file or options.only in fault.what
    ]
    planted = [fault for fault in faults if fault.test]
    with TemporaryDirectory(prefix="memory-mutants-") as folder:
        outcomes = plant_all(planted, Path(folder), options.jobs)
    survivors = [outcome for outcome in outcomes if outcome.result == "survives"]
    for outcome in survivors:
        say(f"survives: {outcome.fault.file}: {outcome.fault.what}: {outcome.fault.new.strip()}")
    for fault in faults:
        if fault.why:
            say(f"not planted: {fault.file}: {fault.what}: {fault.why}")
    hangs = sum(outcome.result == "hangs" for outcome in outcomes)
    found = len(outcomes) - len(survivors)
    say(f"{found} of {len(outcomes)} found, {hangs} of them because their tests did not end")
    return 0 if outcomes and found >= options.least * len(outcomes) else 1


def plant_all(faults: list[Fault], folder: Path, jobs: int) -> list[Outcome]:
    """Plant each fault in one of several copies; a copy's tests pass before the first one is planted."""
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for number in range(jobs):
        copies.put(Copy(folder / str(number)))
    said = threading.Lock()

    def plant(fault: Fault) -> Outcome:
        copy = copies.get()
        try:
            outcome = copy.plant(fault)
        finally:
            copies.put(copy)
        with said:
            say(f"{outcome.result:>8}  {outcome.seconds:5.1f} s  {fault.file}: {fault.what}")
        return outcome

    first = copies.get()
    tests = list(dict.fromkeys(test for fault in faults for test in fault.test))
    code, output = first.run(tests, "-n", str(jobs), seconds=ALL_SECONDS)
    copies.put(first)
    if code != 0:
        sys.exit(f"the tests do not pass without any fault:\n{output[-3000:]}")
    with ThreadPoolExecutor(jobs) as pool:
        return [work.result() for work in as_completed([pool.submit(plant, one) for one in faults])]


if __name__ == "__main__":
    sys.exit(main())
