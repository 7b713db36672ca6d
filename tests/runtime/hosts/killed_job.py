"""A job for `test_local_kill` to kill: small batches, so that it is found at work.

python killed_job.py LOG PARALLELISM
"""

from __future__ import annotations

import json
import sys

from millstream.log import Log
from millstream.runtime.hosts.local import run_job
from millstream.runtime.options import RunOptions
from tests.runtime.late_flights import compiler

LATENESS = "90m"
BATCH_ROWS = 160
"""Of all workers."""


def main(path: str, parallelism: int) -> None:
    log = Log(path)
    options = RunOptions(
        parallelism=parallelism,
        until="end",
        checkpoint_interval_us=5_000,
        batch_rows=BATCH_ROWS // parallelism,
    )
    result = run_job(compiler(log, LATENESS), log, options)
    said = {"restored": result.restored, "finished": result.finished, "read": result.rows_read}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
