"""Tens of thousands of seeded schedules on a simulated disk, for a night:

    python -m tests.log.nightly --seeds 20000 [--first 0]

Every seed is one schedule of its own: what processes do, in which effect they die, what the disk
refuses, tears and loses, and what others do meanwhile. Two of three are of a log, one is of the
members of a group; but every fifth is of named producers. A failing one is printed with the call
that repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from tests.log.groups.simulation import Simulation as GroupSimulation
from tests.log.schedules import disk_that_fails, producers_that_die
from tests.log.simulated.simulation import Simulation

LENGTHS = (6, 20, 60)


def schedule(seed: int) -> tuple[str, Callable[[], Counter[str]]]:
    """Return what a seed runs: the call as text, and the call; it returns what happened."""
    if seed % 5 == 4:
        named = producers_that_die if seed % 2 else disk_that_fails

        def run_schedule() -> Counter[str]:
            named(seed)
            return Counter({named.__name__: 1})

        return f"tests.log.schedules.{named.__name__}({seed})", run_schedule
    steps = LENGTHS[seed // 3 % len(LENGTHS)]
    kind = GroupSimulation if seed % 3 == 2 else Simulation

    def run() -> Counter[str]:
        simulation = kind(seed)
        simulation.run(steps)
        return simulation.counts

    return f"{kind.__module__}.Simulation({seed}).run({steps})", run


def main() -> None:
    """Run the seeds; end with 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    options = parser.parse_args()
    failed: list[int] = []
    counts: Counter[str] = Counter()
    started_s = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        call, run = schedule(seed)
        try:
            counts += run()
        except BaseException as error:
            failed.append(seed)
            traceback.print_exc()
            sys.stdout.write(f"seed {seed} failed: {call}\n")
            if isinstance(error, KeyboardInterrupt):
                break
        if (seed + 1) % 500 == 0:
            rate = (seed + 1 - options.first) / (time.monotonic() - started_s)
            sys.stdout.write(f"to seed {seed}: {rate:.0f} a second, {len(failed)} failed\n")
            sys.stdout.flush()
    sys.stdout.write(f"{dict(counts)}\n{options.seeds} seeds, failed: {failed or 'none'}\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
