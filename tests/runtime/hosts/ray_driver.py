"""A driver for tests to kill: it submits a job to a Ray that runs, and waits.

python ray_driver.py ADDRESS LOG PARALLELISM RUN [--detach]
"""

from __future__ import annotations

import sys

from millstream.dsl.execution import ray_host
from millstream.log import Log
from millstream.runtime.options import RunOptions
from tests.runtime.late_flights import compiler

LATENESS = "10m"
BATCH_ROWS = 20
CHECKPOINT_INTERVAL_US = 100_000


def options(parallelism: int, run: str) -> RunOptions:
    """So few rows at a time that the job can be hit in the middle."""
    return RunOptions(
        parallelism=parallelism,
        run=run,
        checkpoint_interval_us=CHECKPOINT_INTERVAL_US,
        batch_rows=BATCH_ROWS,
    )


def main(address: str, path: str, parallelism: int, run: str, *, detach: bool) -> None:
    ray, log = ray_host(), Log(path)
    settings = ray.RaySettings(address=address, detach=detach)
    handle = ray.submit_job(compiler(log, LATENESS), log, options(parallelism, run), settings)
    handle.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], detach="--detach" in sys.argv)
