"""Thousands of seeded runs of the simulated host, for a night:

    python -m tests.runtime.nightly --seeds 10000 [--first 0]

Every seed is one run with its own data, batch sizes, faults and parallelism. A failing one is
printed with the call that repeats it.
"""

from __future__ import annotations

import argparse
import sys
import traceback

from millstream.runtime.hosts.simulated import Faults
from tests.runtime.hosts.test_simulated import simulate


def main() -> None:
    """Run the seeds; end with 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    options = parser.parse_args()
    failed, restores = [], 0
    for seed in range(options.first, options.first + options.seeds):
        faults = Faults(count_max=2 + seed % 5, every_events=60 + 40 * (seed % 7))
        parallelism = (1, 2, 4)[seed % 3]
        try:
            report = simulate(seed, faults, parallelism)
        except BaseException:
            failed.append(seed)
            traceback.print_exc()
            sys.stdout.write(f"seed {seed} failed: simulate({seed}, {faults}, {parallelism})\n")
            continue
        restores += sum(each.checkpoint is not None for each in report.restores)
        if seed % 100 == 0:
            sys.stdout.write(f"seed {seed}: {restores} restores, {len(failed)} failed\n")
            sys.stdout.flush()
    sys.stdout.write(f"{options.seeds} seeds, {restores} restores, failed: {failed or 'none'}\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
