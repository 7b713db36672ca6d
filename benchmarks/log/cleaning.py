"""Compaction, erasure and retention, each in sealed bytes a second.

Beside: a plain copy of the same segments to one file, read, written and synced. In one topic as
good as all rows are replaced by later ones, in the other all are kept: there is most to write.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, scratch_directory, seconds_of
from benchmarks.log.kit import BATCH_ROWS, PlainFile, batch_of
from millstream.storage_local import LocalStorage

SEGMENT_BYTES = 32 * 1024 * 1024


class WithoutBackground(LocalStorage):
    """Nothing is cleaned before it is measured."""

    def run_later(self, name: str, work: object) -> None:
        """Do nothing."""


def run(quick: bool) -> Figures:
    """Measure a compaction of each kind, an erasure of one key, and the removal of segments."""
    frames = 16 if quick else 64
    figures: Figures = {}
    with scratch_directory() as directory:
        for name, keys in (("replaced", 10_000), ("kept", 2**40)):
            log = filled(directory / name, frames, keys)
            topic = log.topic("events")
            folder = Path(topic.partition(0).directory)
            size = sum(size for _, size in topic.partition(0).segments()[:-1])
            copy_s = seconds_of(lambda: plain_copy(folder, directory / "copy"))  # noqa: B023  # now
            spare = directory / f"spare {name}"
            shutil.copytree(directory / name, spare)
            start = time.perf_counter()
            log.clean()
            rate = size / (time.perf_counter() - start) / 1e6
            figures[f"compaction_all_{name}"] = compared(
                rate, "MB/s", "copy and fsync", size / copy_s / 1e6
            )
            other = ms.Log(str(spare), storage=WithoutBackground())
            key = other.topic("events").to_arrow(["key"]).slice(0, 1)
            start = time.perf_counter()
            done = other.erase("events", key)
            rate = size / (time.perf_counter() - start) / 1e6
            assert done.rows
            figures[f"erasure_all_{name}"] = compared(
                rate, "MB/s", "copy and fsync", size / copy_s / 1e6
            )
        count = 100 if quick else 400
        log = filled(directory / "old", count, 10, rows=1_000, segment_bytes=1)
        log.alter_topic("events", config={"cleanup.policy": "delete", "retention.bytes": 0})
        start = time.perf_counter()
        (done_,) = log.clean()
        figures["retention"] = Figure(
            done_.segments_removed / (time.perf_counter() - start), "segments/s"
        )
    return figures


def filled(
    path: Path,
    frames: int,
    keys: int,
    *,
    rows: int = BATCH_ROWS,
    segment_bytes: int = SEGMENT_BYTES,
) -> ms.Log:
    """Return a log with a table of `frames` appends, whose keys are some of `keys`."""
    random = np.random.default_rng(1)
    log = ms.Log(str(path), storage=WithoutBackground())
    batch = batch_of(rows)
    config = {"segment.bytes": segment_bytes}
    log.create_topic("events", batch.schema, key=["key"], table=True, config=config)
    with log.producer("events") as producer:
        for _ in range(frames):
            column = pa.array(random.integers(0, keys, rows))
            producer.append(batch.set_column(0, "key", column))
    return log


def plain_copy(folder: Path, target: Path) -> None:
    """Copy the sealed segments of a partition to one file, durably."""
    target.unlink(missing_ok=True)
    file = PlainFile(target)
    for path in sorted(folder.glob("*.arrows"))[:-1]:
        file.write(path.read_bytes())
    file.sync()
    file.close()
