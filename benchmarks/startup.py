"""How long a user waits before anything happens: importing, and a whole small script.

Whole processes, median of several. The script counts a hundred rows in windows and prints the
result. `cold` means an empty kernel cache, `warm` a filled one. The bound is Python's own start,
which is reported beside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, Figure, Figures, main, scratch_directory, seconds_of

SCRIPT = """\
from datetime import UTC, datetime, timedelta
import pyarrow as pa
import millstream as ms

log = ms.Log("log")
start = datetime(2024, 1, 1, tzinfo=UTC)
times = pa.array([start + timedelta(minutes=7 * i) for i in range(100)], pa.timestamp("us", "UTC"))
rows = pa.table({"time": times, "user": [f"user {i % 5}" for i in range(100)]})
log.create_topic("clicks", rows.schema, time="time", if_not_exists=True)
with log.producer("clicks") as producer:
    producer.append(rows)
clicks = ms.stream("clicks", log=log)
counts = clicks.key_by("user").window(ms.tumbling("1h")).agg(clicks=ms.count()).collect()
assert sum(counts["clicks"].to_pylist()) == 100, counts
"""


def run(quick: bool) -> Figures:
    """Measure whole processes."""
    repeats = 3 if quick else 7
    with scratch_directory() as directory:
        bare = process_seconds(["-c", "pass"], directory, directory, repeats)
        imported = process_seconds(["-c", "import millstream"], directory, directory, repeats)
        script = directory / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")

        def script_seconds(cache: Path, work: Path) -> float:
            work.mkdir()
            return process_seconds([str(script)], work, cache, 1)

        cold = [
            script_seconds(directory / f"cache-{index}", directory / f"cold-{index}")
            for index in range(3)
        ]
        warm = [
            script_seconds(directory / "cache-0", directory / f"warm-{index}")
            for index in range(repeats)
        ]
    return {
        "python": Figure(bare, "s", "lower"),
        "import_millstream": Figure(imported - bare, "s", "lower", goal=0.4),
        "windowed_count_cold": Figure(sorted(cold)[1], "s", "lower", goal=3.0),
        "windowed_count_warm": Figure(sorted(warm)[repeats // 2], "s", "lower", goal=1.5),
    }


def process_seconds(arguments: list[str], directory: Path, cache: Path, repeats: int) -> float:
    """Return the median time from start to end of a Python process."""
    environment = {**os.environ, "MILLSTREAM_CACHE": str(cache), "PYTHONPATH": str(ROOT)}

    def work() -> None:
        subprocess.run([sys.executable, *arguments], check=True, cwd=directory, env=environment)

    return seconds_of(work, repeats=repeats)


if __name__ == "__main__":
    main(run, __doc__)
