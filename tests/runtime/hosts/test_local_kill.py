"""A job in a process of its own is killed again and again: its output is as if it never was."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millstream.cli.demo.model import Outcome
from millstream.log import Log
from millstream.runtime.attempt import read_manifest
from millstream.runtime.control import JobControl
from millstream.runtime.manifest import Manifest
from tests.runtime.late_flights import MINUTE_US, OUTPUTS, expected, load, outcome

ROOT = Path(__file__).resolve().parents[3]
JOB = "late_flights"
LATENESS_US = 90 * MINUTE_US  # as in killed_job.py
ROWS = 40_000
KILLS, KILLS_MAX = 3, 12
CHECKPOINTS = 2
PAUSE_MAX_S = 0.03
"""A kill comes so long, at most, after the checkpoint that is waited for: anywhere in the next."""
TIMEOUT_S = 30.0
SCHEDULES = {"rescaled": [4, 4, 1, 2]}
"""How many workers each run of a job has: as many as before, fewer, then more."""
if os.environ.get("MILLSTREAM_LONG"):
    SCHEDULES |= {"1": [1], "4": [4]}


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("MILLSTREAM_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, seed: int) -> tuple[Path, Outcome]:
    """A log with flights, hours of disorder among them, and what is to come out."""
    path = tmp_path_factory.mktemp("kill") / "log"
    log = Log(path)
    load(log, random.Random(seed), count=ROWS, partitions=4)
    return path, expected(log, LATENESS_US)


@contextmanager
def started(log: Path, parallelism: int) -> Iterator[subprocess.Popen[str]]:
    """Start the job; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("killed_job.py"), log, str(parallelism)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def reached(log: Log) -> tuple[int, int]:
    """The newest checkpoint, and how many rows of the stream were read before it."""
    manifest = read_manifest(log, JOB)
    return (0, 0) if manifest is None else (manifest.checkpoint, sum(offsets(manifest)))


def offsets(manifest: Manifest) -> list[int]:
    """Where the job stands in the partitions of its stream."""
    partitions = manifest.sources["source-flights"].partitions
    return [partitions[str(index)].offset for index in range(4)] if partitions else [0] * 4


def undecided_rows(log: Log) -> int:
    """How many rows that no transaction has committed lie at the ends of the job's topics."""
    total = 0
    for name in OUTPUTS:
        topic = log.topic(name)
        stable = topic.stable_ends()
        total += sum(topic.partition(index).written_end - end for index, end in enumerate(stable))
    return total


def settled(path: Path) -> Log:
    """Open the log of a job that was killed, as its next run would find it.

    A decision that was written but not synced counts, though no reader has seen it yet: whoever
    appends to the control topic next makes it durable.
    """
    log = Log(path)
    log.transactions.writer("whoever comes next")
    return log


def kill_at_work(
    process: subprocess.Popen[str], log: Log, chooser: random.Random, *, in_flight: bool
) -> bool:
    """Kill the job after some more checkpoints and rows; `False`: it ended before.

    At a moment chosen at random, or when rows are seen that a checkpoint has yet to commit:
    these lie there for a few milliseconds only.
    """
    checkpoint, rows = reached(log)
    checkpoint += CHECKPOINTS
    rows += chooser.randrange(1, ROWS // 8)
    deadline = time.monotonic() + TIMEOUT_S
    while not all(map(int.__ge__, reached(log), (checkpoint, rows))):
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "no checkpoint was completed"
        time.sleep(0.001)
    if in_flight:
        while not undecided_rows(log) and process.poll() is None:
            pass
    else:
        time.sleep(chooser.uniform(0, PAUSE_MAX_S))
    process.kill()
    process.wait()
    manifest = read_manifest(settled(Path(log.path)), JOB)
    return manifest is not None and not manifest.finished


@pytest.mark.parametrize("workers", SCHEDULES.values(), ids=SCHEDULES)
def test_what_a_killed_job_wrote_is_what_it_would_have_written(
    loaded: tuple[Path, Outcome], tmp_path: Path, workers: list[int], seed: int
) -> None:
    sys.stdout.write(f"MILLSTREAM_SEED={seed}\n")
    source, wanted = loaded
    path = tmp_path / "log"
    shutil.copytree(source, path)
    chooser = random.Random(f"{seed} {workers}")
    log = Log(path)
    kills, in_flight = 0, 0
    before: Manifest | None = None
    while kills < KILLS or (not in_flight and kills < KILLS_MAX):
        catch = kills % 2 == 0 or kills >= KILLS
        with started(path, workers[kills % len(workers)]) as process:
            if not kill_at_work(process, log, chooser, in_flight=catch):
                break
        log = Log(path)
        manifest = read_manifest(log, JOB)
        assert manifest is not None
        assert 0 < sum(offsets(manifest)) <= ROWS
        if before is not None:
            # It went on from the checkpoint that the killed one had left.
            record = JobControl(log, JOB).record()
            assert record is not None
            assert record.restored == before.checkpoint
            assert manifest.epoch > before.epoch
            assert all(map(int.__le__, offsets(before), offsets(manifest)))
        in_flight += undecided_rows(log) > 0
        kills += 1
        before = manifest
    assert kills >= KILLS, f"it ended too soon to be killed; seed {seed}"
    assert in_flight, f"no kill found rows in flight; seed {seed}"
    assert before is not None
    assert before.checkpoint > KILLS * CHECKPOINTS

    with started(path, workers[kills % len(workers)]) as process:
        out, error = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, error) == (0, "")
    result = json.loads(out)
    assert (result["restored"], result["finished"]) == (before.checkpoint, True)
    assert result["read"] < ROWS
    log = Log(path)
    # What a killed one had written but not synced may lie behind the durable end: nobody sees it.
    assert all(log.topic(name).stable_ends() == log.topic(name).durable_ends() for name in OUTPUTS)
    assert outcome(log) == wanted, f"seed {seed}"
    assert wanted.late
    assert wanted.cancelled
