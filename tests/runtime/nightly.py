"""Thousands of seeded runs of the simulated host, and long ones of real processes, for a night:

    python -m tests.runtime.nightly --seeds 10000 [--first 0] [--pressure 10]

Every seed is one run with its own data, batch sizes, faults and parallelism. A failing one is
printed with the call that repeats it. On Ray a worker stands still for ten seconds while rows of a
million matches go from all to all, as often as `--pressure` says; as often a job of one worker, one
of four and one that is rescaled are killed in processes of their own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback

from millstream.runtime.hosts.simulated import Faults
from tests.runtime.hosts.test_simulated import simulate

LONG = ("tests/runtime/hosts/test_ray_pressure.py", "tests/runtime/hosts/test_local_kill.py")
"""Tests that have a long form."""


def pressed() -> bool:
    """Run the tests that have one in their long form; return whether they passed."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", *LONG]
    return (
        subprocess.run(command, check=False, env={**os.environ, "MILLSTREAM_LONG": "1"}).returncode
        == 0
    )


def main() -> None:
    """Run the seeds; end with 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    parser.add_argument("--pressure", type=int, default=10, help="how many long runs (10)")
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
    held = sum(pressed() for _ in range(options.pressure))
    sys.stdout.write(f"{held} of {options.pressure} long runs passed\n")
    sys.exit(bool(failed) or held < options.pressure)


if __name__ == "__main__":
    main()
