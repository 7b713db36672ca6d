"""Opening a partition of 10 GB after a clean close: until its end is known, and its first row read.

The last segment and the first are real. Those between are sparse files of a segment's size with a
real head: opening looks at their names only. After a new boot the last segment is read and checked
as well, which is told beside.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import millstream as ms
from benchmarks.harness import Figure, Figures, scratch_directory
from benchmarks.log.kit import BATCH_ROWS, batch_of
from millstream.storage_local import LocalStorage

SEGMENT_BYTES = 256 * 1024 * 1024
TOTAL_BYTES = 10 * 1000**3


def run(quick: bool) -> Figures:
    """Measure the opening of a topic, in the same boot and after another."""
    total = TOTAL_BYTES // 10 if quick else TOTAL_BYTES
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        batch = batch_of(BATCH_ROWS)
        log.create_topic("events", batch.schema, config={"segment.bytes": SEGMENT_BYTES})
        partition = log.topic("events").partition(0)
        with log.producer("events") as producer:
            while len(partition.segments()) < 2 or partition.segments()[-1][1] < SEGMENT_BYTES // 2:
                producer.append(batch)
                producer.flush()
        grow(Path(partition.directory), total)
        times = [opening_s(LocalStorage(), directory / "log") for _ in range(3 if quick else 9)]
        rebooted = LocalStorage()
        rebooted._boot_id = "another boot"
        after = opening_s(rebooted, directory / "log")
    return {
        "10_GB": Figure(statistics.median(times) * 1e3, "ms", "lower", goal=50),
        "10_GB_after_another_boot": Figure(after * 1e3, "ms", "lower"),
    }


def grow(folder: Path, total_bytes: int) -> None:
    """Put sparse segments between the first one and the last."""
    first = min(folder.glob("*.arrows"))
    with first.open("rb") as file:
        head = file.read(4096)
    for base in range(1, total_bytes // SEGMENT_BYTES):
        with (folder / f"{base:020d}.arrows").open("wb") as sparse:
            sparse.write(head)
            sparse.truncate(SEGMENT_BYTES)


def opening_s(storage: LocalStorage, path: Path) -> float:
    """Return the seconds until the end of the topic is known and its first row was read."""
    start = time.perf_counter()
    log = ms.Log(str(path), storage=storage)
    topic = log.topic("events")
    assert topic.durable_ends()[0] > 0
    reader = topic.reader(0, offset=topic.partition(0).first_offset, columns=["key"])
    assert reader.read(rows_max=1) is not None
    return time.perf_counter() - start
