"""One producer: large batches beside a plain write, small ones beside a write and fdatasync.

Large: batches of 64 Ki rows, keyed, into 4 partitions, flushed at the end; beside the same bytes
in as many writes to one file, and one fdatasync (durability `fsync`), or none (`os`).

Small: batches of 100 rows, each flushed; beside a write of as many bytes and an fdatasync. The
critical section is the time inside the partition's append lock.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, scratch_directory
from benchmarks.log.kit import (
    BATCH_ROWS,
    SMALL_ROWS,
    Durability,
    PlainFile,
    batch_of,
    call_times,
    median_us,
    new_topic,
)
from millstream.log.producer import Producer
from millstream.storage_local import LocalStorage

LARGE_RUNS = 9


def run(quick: bool) -> Figures:
    """Measure both sizes."""
    with scratch_directory() as directory:
        figures: Figures = {}
        for durability in ("fsync", "os"):
            figures |= large(directory, durability, 4 if quick else 24)
        return figures | small(directory, 100 if quick else 1_000)


def large(directory: Path, durability: Durability, batches: int) -> Figures:
    """Return bytes a second, as they lie on disk.

    Both append to new files, which are there until both are done: in a virtual machine fresh
    memory for them is several times slower in one second than in the next, so they take turns,
    and each finds as much of it free as the other did. Without a sync a turn is one batch.
    """
    batch = batch_of(BATCH_ROWS)
    content = b"\7" * sum(buffer.size for column in batch for buffer in column.buffers() if buffer)
    turn_batches = batches if durability == "fsync" else 1
    appended: list[float] = []
    written: list[float] = []
    for run in range(LARGE_RUNS):
        folder = directory / f"{durability}-{run}"
        log = new_topic(folder, durability, partitions=4, keyed=True)
        producer = log.producer("events")
        producer.append(batch)  # makes the segments
        producer.flush()
        file = PlainFile(folder / "plain")
        file.write(content)
        file.sync()

        def append(producer: Producer = producer) -> None:
            for _ in range(turn_batches):
                producer.append(batch)
            producer.flush()

        def plain(file: PlainFile = file) -> None:
            for _ in range(turn_batches):
                file.write(content)
            if durability == "fsync":
                file.sync()

        turns: list[tuple[Callable[[], None], list[float]]]
        turns = [(append, appended), (plain, written)]
        for turn in range(run, run + batches // turn_batches):
            for work, times in turns if turn % 2 else reversed(turns):
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
        file.close()
        shutil.rmtree(folder)
    size = len(content) * turn_batches
    ours, bound = (size / statistics.median(times) for times in (appended, written))
    goal = 0.8 if durability == "fsync" else 0.5
    limit = "plain write and fdatasync" if durability == "fsync" else "plain write"
    return {f"64Ki_rows_{durability}": compared(ours, "B/s", limit, bound, goal=goal)}


def small(directory: Path, count: int) -> Figures:
    """Return microseconds of single appends."""
    batch = batch_of(SMALL_ROWS)
    storage = TimedStorage()
    log = ms.Log(str(directory / "small"), storage=storage)
    log.create_topic("events", batch.schema)
    producer = log.producer("events")
    plain = PlainFile(directory / "plain")
    frame = b"\7" * frame_bytes(log, producer.append, batch)

    def flushed() -> None:
        producer.append(batch)
        producer.flush()

    def bare() -> None:
        plain.write(frame)
        plain.sync()

    times = call_times({"flushed": flushed, "bare": bare}, count)
    storage.sections.clear()
    alone = call_times({"append": lambda: producer.append(batch)}, 10 * count)
    ours, limit = median_us(times["flushed"]), median_us(times["bare"])
    return {
        "100_rows_flushed": Figure(
            ours, "µs", "lower", "write and fdatasync", ours / limit, goal=1.3
        ),
        "100_rows": Figure(median_us(alone["append"]), "µs", "lower"),
        "critical_section": Figure(median_us(storage.sections), "µs", "lower", goal=10),
    }


def frame_bytes(log: ms.Log, append: Callable[[object], None], batch: object) -> int:
    """Return how many bytes a frame of `batch` has in the segment."""
    partition = log.topic("events").partition(0)
    append(batch)
    partition.sync()
    before = partition.segments()[0][1]
    append(batch)
    partition.sync()
    return partition.segments()[0][1] - before


class TimedStorage(LocalStorage):
    """The machine's disk, which notes how long append locks are held."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[float] = []

    def lock(
        self,
        path: str,
        timeout_us: int = 10_000_000,
        unless: Callable[[], bool] | None = None,
        is_served: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[bool]:
        """Hold a lock; see `LocalStorage`."""
        lock = super().lock(path, timeout_us, unless, is_served)
        return self._timed(lock) if path.endswith("append.lock") else lock

    @contextmanager
    def _timed(self, lock: AbstractContextManager[bool]) -> Iterator[bool]:
        with lock as is_held:
            start = time.perf_counter()
            yield is_held
            self.sections.append(time.perf_counter() - start)
