"""Commits of a group a second, beside a bare write and fdatasync; partitions that change hands.

A commit is an append of about a kilobyte and one sync: at best as fast as a plain file's. What was
not chosen, a file with all offsets that is replaced whole for each commit (written, synced,
renamed, its folder synced), is measured beside it. Eight members in threads commit side by side;
they share syncs.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, scratch_directory
from benchmarks.log.kit import PlainFile, call_times
from millstream.storage_local import LocalStorage

PARTITIONS = 8
FRAME_BYTES = 1_024


def run(quick: bool) -> Figures:
    """Measure commits alone and side by side, what reading them costs, and a rebalance."""
    count = 200 if quick else 1_000
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        log.create_topic("events", pa.schema([("id", pa.int64())]), partitions=PARTITIONS)
        alone = one_member(log, directory, count)
        together = members_side_by_side(directory / "log", count // 4)
        start = time.perf_counter()
        assert len(ms.Log(directory / "log").group("alone").committed()) == PARTITIONS
        opened_s = time.perf_counter() - start
        moved_s = [handover_s(directory / "log", f"moved{index}") for index in range(3)]
    plain, replaced = 1 / alone["plain"], 1 / alone["replaced"]
    return {
        "commits": compared(1 / alone["commit"], "commits/s", "write + fdatasync", plain),
        "file_replaced_whole": compared(replaced, "commits/s", "write + fdatasync", plain),
        "commits_of_8_members": compared(together, "commits/s", "one member", 1 / alone["commit"]),
        "offsets_read_anew": Figure(opened_s * 1e3, "ms", "lower"),
        "partitions_change_hands": Figure(statistics.median(moved_s) * 1e3, "ms", "lower"),
    }


def one_member(log: ms.Log, directory: Path, count: int) -> dict[str, float]:
    """Return the median seconds of a commit of all partitions, and of what it is compared with."""
    storage = LocalStorage()
    plain = PlainFile(directory / "plain")
    content = bytes(FRAME_BYTES)
    at = iter(range(1_000_000))
    with log.consumer("events", group="alone", auto_commit=False) as consumer:
        consumer.poll()

        def commit() -> None:
            offset = next(at)
            consumer.commit({partition: offset for partition in range(PARTITIONS)})

        def write() -> None:
            plain.write(content)
            plain.sync()

        def replace() -> None:
            storage.write_file(f"{directory}/replaced", content)

        works: dict[str, Callable[[], object]] = {
            "commit": commit,
            "plain": write,
            "replaced": replace,
        }
        times = call_times(works, count)
    plain.close()
    return {name: statistics.median(each) for name, each in times.items()}


def members_side_by_side(path: Path, count: int) -> float:
    """Return how many commits a second eight members of a group have made durable together."""
    ready = threading.Barrier(PARTITIONS + 1)

    def work() -> None:
        with ms.Log(path).consumer("events", group="together", auto_commit=False) as consumer:
            while len(consumer.partitions) != 1:
                consumer.poll(timeout_us=10_000)
            ready.wait()
            (place,) = consumer.partitions
            for each in range(count):
                consumer.commit({place: each})
            ready.wait()

    threads = [threading.Thread(target=work) for _ in range(PARTITIONS)]
    for each in threads:
        each.start()
    ready.wait()
    start = time.perf_counter()
    ready.wait()
    took = time.perf_counter() - start
    for each in threads:
        each.join()
    return PARTITIONS * count / took


def handover_s(path: Path, group: str) -> float:
    """Return the seconds from a second member's first poll until it reads its half."""
    over = threading.Event()
    started = threading.Event()

    def hold() -> None:
        with ms.Log(path).consumer("events", group=group) as consumer:
            while not over.is_set():
                consumer.poll(timeout_us=100_000)
                started.set()

    first = threading.Thread(target=hold)
    first.start()
    started.wait()
    with ms.Log(path).consumer("events", group=group) as consumer:
        start = time.perf_counter()
        while len(consumer.partitions) < PARTITIONS // 2:
            consumer.poll(timeout_us=1_000)
        took = time.perf_counter() - start
    over.set()
    first.join()
    return took
