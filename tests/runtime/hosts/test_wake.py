"""An idle worker sleeps on bells, and through none: every row comes though nobody looks again."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

import millstream as ms
from millstream.clock import ManualClock, SystemClock
from millstream.log import Log, bells
from millstream.log.bells import Bells
from millstream.runtime.hosts import wake as wakes
from millstream.runtime.hosts.local import submit_job
from millstream.runtime.hosts.wake import Rest, Wake
from millstream.runtime.options import RunOptions
from millstream.runtime.sink import LogSink
from millstream.runtime.worker import Worker
from millstream.storage_local import LocalStorage
from tests.runtime.kit import EVENTS, compiler, events

FOR_EVER_US = 600_000_000


@pytest.fixture(autouse=True)
def nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lost call, and the test waits for as long as this."""
    monkeypatch.setattr(bells, "LOOK_AGAIN_US", FOR_EVER_US)
    monkeypatch.setattr(wakes, "LOOK_AGAIN_US", FOR_EVER_US)


class TestWake:
    def test_whenever_it_is_set_the_rest_ends(self, tmp_path: Path) -> None:
        log_bells, ringing = (Bells(str(tmp_path), LocalStorage(), SystemClock()) for _ in range(2))
        wake = Wake("worker")
        rounds = 300
        given = taken = 0
        took = threading.Semaphore(0)

        def rest() -> None:
            nonlocal taken
            while taken < rounds:
                wake.clear()
                rung = dict(log_bells.listen([3]))
                if taken < given:  # the work that was looked for
                    taken = given
                    took.release()
                    continue
                wake.rest_on_bells(log_bells, rung, FOR_EVER_US)

        threading.Thread(target=rest, daemon=True).start()
        for number in range(1, rounds + 1):
            time.sleep(0.0001 * (number % 3))  # it rests, or is about to
            given = number
            if number % 2:
                wake.set()
            else:
                ringing.ring(3)
            assert took.acquire(timeout=20), (given, taken)

    def test_it_says_which_bells_rang(self, tmp_path: Path) -> None:
        log_bells = Bells(str(tmp_path), LocalStorage(), SystemClock())
        wake = Wake("worker")
        rung = dict(log_bells.listen([3, 4]))
        log_bells.ring(4)
        assert wake.rest_on_bells(log_bells, rung, FOR_EVER_US) == [4]
        wake.set()
        assert wake.rest_on_bells(log_bells, dict(log_bells.listen([3])), FOR_EVER_US) == []
        wake.rest(FOR_EVER_US)
        wake.clear()
        start = time.monotonic()
        wake.rest(1_000)
        assert time.monotonic() - start >= 0.001


class FakeWorker:
    """As a host sees a worker of two partitions, with bells 3 and 4."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.bells = Bells(str(path), LocalStorage(), self.clock)
        self.to_hear = [3, 4]
        self.told: list[object] = []

    def waits_for_log(self) -> bool:
        return True

    def unheard(self) -> list[int]:
        return self.to_hear

    def listened(self, bells: set[int]) -> None:
        self.told.append(("listened", set(bells)))

    def look_again(self, bells: set[int] | None = None) -> None:
        self.told.append(("look again", bells))


class TestRest:
    def test_it_listens_looks_once_more_and_then_sleeps_until_it_rings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = FakeWorker(tmp_path)
        rest = Rest(worker, Wake("worker"))  # type: ignore[arg-type]
        rest.take(0, 0, FOR_EVER_US)  # would sleep for ever
        assert worker.told.pop() == ("listened", {3, 4})
        worker.to_hear = []
        worker.bells.ring(4)
        rest.take(0, 0, FOR_EVER_US)
        assert worker.told.pop() == ("look again", {4})
        worker.to_hear = [4]
        rest.take(0, 0, FOR_EVER_US)
        assert worker.told.pop() == ("listened", {4})
        worker.to_hear = []
        worker.bells.ring(3)
        rest.take(0, 0, FOR_EVER_US)
        assert worker.told.pop() == ("look again", {3})

    def test_after_a_while_it_looks_at_all_whether_it_finds_work_or_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wakes, "LOOK_AGAIN_US", 1_000)
        worker = FakeWorker(tmp_path)
        rest = Rest(worker, Wake("worker"))  # type: ignore[arg-type]
        rest.take(0, 500, FOR_EVER_US)  # the look at all took half a millisecond
        worker.told.clear()
        rest.found_work(15_999)
        assert worker.told == [], "no more than one 32nd of the time is spent on it"
        rest.found_work(16_000)
        assert worker.told.pop() == ("look again", None)
        rest.take(20_000, 1, FOR_EVER_US)
        assert worker.told.pop() == ("listened", {3, 4})
        rest.take(21_000, 1, FOR_EVER_US)
        assert worker.told.pop() == ("look again", None)


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Waits for so many values to come to a sink; rows are in its topic after a checkpoint only."""
    values: queue.SimpleQueue[int] = queue.SimpleQueue()
    append = LogSink.append

    def noted(sink: LogSink, rows: pa.RecordBatch, transaction: int) -> None:
        append(sink, rows, transaction)
        for each in rows.column("value").to_pylist():
            values.put(each)

    monkeypatch.setattr(LogSink, "append", noted)
    return lambda count: sorted(values.get(timeout=60) for _ in range(count))


@contextmanager
def copying(log: Log, partitions: int, parallelism: int) -> Iterator[None]:
    """Run a job that copies `events`, and end it."""
    log.create_topic("events", EVENTS, partitions=partitions, time="time", durability="os")
    stream = ms.stream("events", log=log).key_by("key").to("copy")
    options = RunOptions(run="run", parallelism=parallelism, checkpoint_interval_us=FOR_EVER_US)
    handle = submit_job(compiler([stream]), log, options)
    yield
    handle.stop()
    assert handle.wait(timeout_s=60) is not None


@pytest.mark.parametrize(("partitions", "parallelism"), [(2, 1), (3, 2), (140, 1)])
def test_no_row_is_slept_through(
    tmp_path: Path, arrived: Callable[[int], list[int]], partitions: int, parallelism: int
) -> None:
    log = Log(tmp_path / "log")
    with copying(log, partitions, parallelism):
        producer = Log(log.path).producer("events")
        for number in range(0, 60, 2):
            for each in (number, number + 1):
                rows = events(each, key="abc"[each % 3], first=each)
                producer.append(rows, partition=each * 7 % partitions)
                time.sleep(0.0004 * (number % 5))
            # The worker comes to rest, or is about to, when the next ones are appended.
            assert arrived(2) == [number, number + 1]


def test_rows_of_transactions_are_read_when_they_are_decided(
    tmp_path: Path, arrived: Callable[[int], list[int]]
) -> None:
    log = Log(tmp_path / "log")
    with copying(log, 2, 1):
        for number in range(12):
            with Log(log.path).transaction("writer") as transaction:
                transaction.append("events", events(number, first=number))
                time.sleep(0.002 * (number % 3))
            assert arrived(1) == [number]


def test_an_idle_job_looks_for_rows_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "log")
    schema = pa.schema([("id", pa.int64())])
    log.create_topic("many", schema, partitions=140, durability="os")
    log.create_topic("copy", schema, durability="os")
    stream = ms.stream("many", log=log).to("copy")
    step, steps = Worker.step, []

    def counted(self: Worker) -> bool:
        steps.append(time.monotonic())
        return step(self)

    monkeypatch.setattr(Worker, "step", counted)
    handle = submit_job(compiler([stream]), log, RunOptions(run="run", parallelism=1))
    time.sleep(0.5)
    before, start = len(steps), time.monotonic()
    time.sleep(0.5)
    seconds = time.monotonic() - start
    # Where it polled it looked every 5 ms; now it sleeps until it is rung for, or for 100 ms.
    assert before
    assert len(steps) - before < 80 * seconds
    handle.stop()
    assert handle.wait(timeout_s=60) is not None
