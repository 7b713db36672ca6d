"""16 producers of 100-row batches, each flushed, on one partition: threads, and processes.

The goal is that of the requirement: 80 % of (f+a)·max(16/(f+16a), 8/max(f, 8a)) times one
producer's rate, where f is the time of an fdatasync and a that of an append without it, all of
the same run. `syncs_per_append` says how many producers share one.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import millstream as ms
from benchmarks.harness import ROOT, Figure, Figures, scratch_directory
from benchmarks.log.kit import SMALL_ROWS, PlainFile, batch_of, call_times, median_us, new_topic
from millstream.storage_local.files import LocalAppendFile

PRODUCERS = 16


def run(quick: bool) -> Figures:
    """Measure one producer, then 16 threads, then 16 processes."""
    seconds = 0.5 if quick else 3.0
    with scratch_directory() as directory:
        path = directory / "log"
        new_topic(path, "fsync")
        sync_us, append_us = single(directory, path, 50 if quick else 500)
        one = Counted(path).work(seconds)[0] / seconds
        ceiling = (sync_us + append_us) * max(
            PRODUCERS / (sync_us + PRODUCERS * append_us),
            PRODUCERS / 2 / max(sync_us, PRODUCERS / 2 * append_us),
        )
        figures = {
            "one": Figure(one, "appends/s"),
            "fdatasync": Figure(sync_us, "µs", "lower"),
            "append_without_it": Figure(append_us, "µs", "lower"),
        }
        for kind, (appends, syncs) in {
            "threads": of_threads(path, seconds),
            "processes": of_processes(path, seconds),
        }.items():
            rate = appends / seconds
            figures[f"16_{kind}"] = Figure(
                rate, "appends/s", "higher", f"{ceiling:.2f} × one", rate / (ceiling * one), 0.8
            )
            figures[f"16_{kind}_syncs_per_append"] = Figure(syncs / appends, "", "lower")
        return figures


def single(directory: Path, path: Path, count: int) -> tuple[float, float]:
    """Return the median microseconds of an fdatasync of new bytes, and of an append."""
    batch = batch_of(SMALL_ROWS)
    producer = ms.Log(path).producer("events")
    plain = PlainFile(directory / "plain")
    content = bytes(SMALL_ROWS * 40)

    syncs = []
    for _ in range(count):
        plain.write(content)
        start = time.perf_counter()
        plain.sync()
        syncs.append(time.perf_counter() - start)
    appends = call_times({"append": lambda: producer.append(batch)}, 4 * count)["append"]
    producer.flush()
    return median_us(syncs), median_us(appends)


class Counted:
    """A producer of the log in `path` that appended already, so that its imports are done."""

    def __init__(self, path: Path) -> None:
        self._producer = ms.Log(path).producer("events")
        self._batch = batch_of(SMALL_ROWS)
        self.work(0)

    def work(self, seconds: float) -> tuple[int, int]:
        """Append and flush for so long; return how many appends and how many syncs that were."""
        syncs = 0
        sync = LocalAppendFile.sync

        def counted(file: LocalAppendFile) -> None:
            nonlocal syncs
            syncs += 1
            sync(file)

        with patch.object(LocalAppendFile, "sync", counted):
            return self.append(seconds), syncs

    def append(self, seconds: float) -> int:
        """Append and flush for so long, once at least; return how many appends that were."""
        appends = 0
        until = time.monotonic() + seconds
        while appends == 0 or time.monotonic() < until:
            self._producer.append(self._batch)
            self._producer.flush()
            appends += 1
        return appends


def of_threads(path: Path, seconds: float) -> tuple[int, int]:
    """Return appends and syncs of 16 threads, each with a log of its own."""
    counts: list[int] = []
    syncs = 0
    sync = LocalAppendFile.sync
    gate = threading.Barrier(PRODUCERS)

    def counted(file: LocalAppendFile) -> None:
        nonlocal syncs
        syncs += 1  # under the sync lock
        sync(file)

    def work() -> None:
        producer = Counted(path)
        gate.wait()
        counts.append(producer.append(seconds))

    with patch.object(LocalAppendFile, "sync", counted):
        threads = [threading.Thread(target=work) for _ in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts), syncs


def of_processes(path: Path, seconds: float) -> tuple[int, int]:
    """Return appends and syncs of 16 processes."""
    command = [sys.executable, "-m", "benchmarks.log.producers", str(path), str(seconds)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PRODUCERS)
    ]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    answers = [each.communicate()[0].split() for each in processes]
    return sum(int(each[0]) for each in answers), sum(int(each[1]) for each in answers)


if __name__ == "__main__":
    own = Counted(Path(sys.argv[1]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(" ".join(map(str, own.work(float(sys.argv[2])))))
