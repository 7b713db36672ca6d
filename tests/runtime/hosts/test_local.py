"""The local host: threads that end, signals that are obeyed, errors that are told, exactly once."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import millstream as ms
from millstream import col
from millstream.errors import FencedError, JobError, LogError
from millstream.log import Log
from millstream.log.producer import Producer
from millstream.runtime.control import JobControl, JobRecord, JobState
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.hosts import worker_thread
from millstream.runtime.hosts.local import run_job, stop_on_signal
from millstream.runtime.options import RunOptions
from millstream.runtime.result import RunResult
from millstream.runtime.worker import Worker
from tests.runtime.job_model import Job, Model, sinks
from tests.runtime.kit import EVENTS, collecting, compiler, events, put, rows_of
from tests.runtime.test_jobs import INPUTS, TOPICS, Case, Input, Topics, jobs

INTERVAL_US = 20_000
WAIT_S = 30.0


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "log")
    made.create_topic("events", EVENTS, partitions=2, time="time")
    for number in range(20):
        put(made, "events", events(number, key="abc"[number % 3], first=number), number % 2)
    return made


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def copying(log: Log) -> list[ms.Sink]:
    return [ms.stream("events", log=log).key_by("key").to("copy")]


def run(
    log: Log,
    ends: Sequence[ms.Sink],
    on_status: Callable[[JobRecord], None] | None = None,
    **options: Any,
) -> RunResult:
    given: dict[str, Any] = {
        "until": "end",
        "parallelism": 2,
        "checkpoint_interval_us": INTERVAL_US,
        **options,
    }
    return run_job(compiler(ends), log, RunOptions(**given), on_status)


def is_decided(log: Log, topic: str = "copy") -> bool:
    """Nothing that is durable in a topic waits for a decision."""
    found = Log(log.path).topic(topic)
    return found.stable_ends() == found.durable_ends()


def copied(log: Log) -> list[int]:
    return sorted(row[0] for row in rows_of(Log(log.path), "copy", "value"))


def state(log: Log) -> JobState | None:
    record = JobControl(log, "job").record()
    return None if record is None else record.state


class TestResults:
    def test_a_bounded_run_reads_to_the_end_and_finishes(self, log: Log) -> None:
        seen: list[JobRecord] = []
        result = run(log, copying(log), seen.append)
        assert copied(log) == list(range(20))
        assert (result.finished, result.restored) == (True, None)
        assert (result.rows_read, result.rows_written) == (20, 20)
        assert result.checkpoints >= 1
        assert sum(each.rows_read for each in seen[-1].workers) == 20
        assert seen[-1].checkpoint_us is not None
        assert seen[-1].state is JobState.FINISHED
        assert state(log) is JobState.FINISHED
        again = run(log, copying(log))
        assert (again.rows_read, copied(log)) == (0, list(range(20)))

    def test_rows_are_collected_without_a_trace_in_the_log(self, log: Log) -> None:
        files = {path: path.stat().st_mtime_ns for path in Path(log.path).rglob("*.*")}
        stream = ms.stream("events", log=log).filter(col("value") >= 15)
        for parallelism in (1, 2, 3):
            options = RunOptions(parallelism=parallelism, until="end", fresh=True)
            result = run_job(collecting(stream), log, options)
            (table,) = result.tables.values()
            assert sorted(table.column("value").to_pylist()) == [15, 16, 17, 18, 19]
        assert {path: path.stat().st_mtime_ns for path in Path(log.path).rglob("*.*")} == files

    def test_counters_are_summed_over_the_workers(self, log: Log) -> None:
        counted = ms.stream("events", log=log).key_by("key").window(ms.tumbling("1m"))
        result = run(log, [counted.agg(n=ms.count()).to("windows")])
        assert result.counters["window-key"].rows_out == 3

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(
        job=jobs(),
        topics=TOPICS,
        inputs=st.lists(INPUTS, min_size=1, max_size=2),
        parallelism=st.integers(1, 4),
        batch_rows=st.sampled_from([1, 3, 1000]),
        channel_bytes=st.sampled_from([1, 1_000_000]),
        send_rows=st.sampled_from([1, 5, 1000]),
        gather_rows=st.sampled_from([1, 5, 1000]),
    )
    def test_any_job_gives_what_the_model_gives(
        self,
        job: Job,
        topics: Topics,
        inputs: list[Input],
        parallelism: int,
        batch_rows: int,
        channel_bytes: int,
        send_rows: int,
        gather_rows: int,
    ) -> None:
        with tempfile.TemporaryDirectory() as directory:
            case, own = Case(topics, Model(job)), Log(directory)
            case.create(own)
            for each in inputs:
                case.append(own, each)
                run(
                    own,
                    sinks(job, own),
                    parallelism=parallelism,
                    batch_rows=batch_rows,
                    channel_bytes=channel_bytes,
                    send_rows=send_rows,
                    gather_rows=gather_rows,
                )
                case.check(Log(directory))


class TestStops:
    def stop_when_copied(self, log: Log, *, signals: int = 1) -> Callable[..., None]:
        def on_status(record: JobRecord) -> None:
            if sum(each.rows_written for each in record.workers) >= 20:
                for _ in range(signals):
                    signal.raise_signal(signal.SIGINT)

        return on_status

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_first_signal_ends_it_after_one_more_checkpoint(
        self, log: Log, number: signal.Signals
    ) -> None:
        before = signal.getsignal(number)
        asked: list[int] = []

        def on_status(record: JobRecord) -> None:
            if not asked and sum(each.rows_written for each in record.workers) >= 20:
                asked.append(1)
                signal.raise_signal(number)

        result = run(log, copying(log), on_status, until=None, checkpoint_interval_us=10**9)
        assert not result.finished
        assert result.checkpoints == 1
        assert copied(log) == list(range(20))
        assert is_decided(log)
        assert state(log) is JobState.STOPPED
        assert signal.getsignal(number) is before

    def test_a_second_signal_ends_it_at_once_and_takes_back_what_was_not_committed(
        self, log: Log
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(
                log,
                copying(log),
                self.stop_when_copied(log, signals=2),
                until=None,
                checkpoint_interval_us=10**9,
            )
        assert is_decided(log)
        assert copied(log) == []
        run(log, copying(log))
        assert copied(log) == list(range(20))

    def test_a_second_signal_does_not_fall_into_a_commit(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = Coordinator._commit

        def interrupted(self: Any, manifest: Any) -> None:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            commit(self, manifest)

        plans = Coordinator.start

        def start(self: Any) -> Any:
            started = plans(self)
            monkeypatch.setattr(Coordinator, "_commit", interrupted)
            return started

        monkeypatch.setattr(Coordinator, "start", start)
        with pytest.raises(KeyboardInterrupt):
            run(log, copying(log), until=None)
        assert is_decided(log)

    def test_handlers_that_python_did_not_set_are_let_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_: list[tuple[int, object]] = []

        def set_handler(number: int, handler: object) -> None:
            set_.append((number, handler))

        monkeypatch.setattr(signal, "signal", set_handler)
        with stop_on_signal(lambda: None):
            pass
        assert set_[2:] == [(signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL)]

    def test_in_another_thread_signals_stay_as_they_are(self, log: Log) -> None:
        handlers: list[object] = []

        def on_status(record: JobRecord) -> None:
            handlers.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=lambda: run(log, copying(log), on_status))
        thread.start()
        thread.join(WAIT_S)
        assert set(handlers) == {signal.getsignal(signal.SIGINT)}
        assert copied(log) == list(range(20))


class TestTwoRunsAtOnce:
    def test_the_newer_one_fences_the_older_one(self, log: Log) -> None:
        running = threading.Event()
        errors: list[BaseException] = []

        def older() -> None:
            try:
                run(log, copying(log), lambda _: running.set(), until=None)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=older)
        thread.start()
        assert running.wait(WAIT_S)
        result = run(Log(log.path), copying(log))
        thread.join(WAIT_S)
        assert result.finished
        assert [type(each) for each in errors] == [FencedError]
        assert "another run of it started" in str(errors[0])
        assert copied(log) == list(range(20))
        assert is_decided(log)

    def test_collecting_fences_nobody(self, log: Log) -> None:
        asked: list[int] = []

        def on_status(record: JobRecord) -> None:
            if not asked and sum(each.rows_written for each in record.workers) >= 20:
                asked.append(ms.stream("events", log=Log(log.path)).collect().num_rows)
                signal.raise_signal(signal.SIGINT)

        run(log, copying(log), on_status, until=None)
        assert asked == [20]
        assert copied(log) == list(range(20))


class TestFailures:
    def fails(
        self, log: Log, kind: type[BaseException], match: str, ends: list[ms.Sink] | None = None
    ) -> BaseException:
        """A run fails with that error, and leaves nothing undecided and no thread."""
        with pytest.raises(kind, match=match) as raised:
            run(log, ends or copying(log))
        assert state(log) is JobState.FAILED
        if "copy" in log.topic_names():
            assert is_decided(log)
        return raised.value

    def test_an_operator_that_fails_is_named_with_the_rows(self, log: Log) -> None:
        row = events(0).set_column(0, EVENTS.field(0), pa.nulls(1, EVENTS.field(0).type))
        put(log, "events", row, 1)
        stream = ms.stream("events", log=log).key_by("key")
        windows = stream.window(ms.tumbling("1h")).agg(n=ms.count()).to("windows")
        error = self.fails(log, JobError, "has no event time", [*copying(log), windows])
        assert "events/1, offset " in str(error)
        assert f"{__file__}:" in str(error)

    def test_a_worker_that_fails_for_another_reason_is_told_of(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step = Worker.step

        def failing(self: Any) -> bool:
            if self.index == 1 and self.positions()["source-events"][1].offset == 10:
                message = "it happens"
                raise ValueError(message)
            return step(self)

        monkeypatch.setattr(Worker, "step", failing)
        error = self.fails(log, JobError, "worker 1 failed: ValueError: it happens")
        assert isinstance(error.__cause__, ValueError)
        monkeypatch.undo()
        run(log, copying(log))
        assert copied(log) == list(range(20))

    def test_a_checkpoint_that_cannot_be_made_durable_fails_the_run(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> None:
            message = "No space left on device"
            raise OSError(message)

        monkeypatch.setattr(worker_thread, "persist", refused)
        self.fails(log, JobError, "OSError: No space left on device")
        assert copied(log) == []

    def test_an_append_that_fails_beside_a_worker_fails_the_run(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(self: Any, *_: object, **__: object) -> None:
            message = "the disk refused an append"
            raise LogError(message)

        ends = copying(log)
        monkeypatch.setattr(Producer, "append", refused)
        self.fails(log, LogError, "the disk refused an append", ends)
        monkeypatch.undo()
        assert copied(log) == []

    def test_the_first_error_is_told_where_the_log_refuses_the_end_too(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(self: Any) -> bool:
            message = "it happens"
            raise ValueError(message)

        def refused(self: Any) -> None:
            message = "the disk refuses"
            raise LogError(message)

        monkeypatch.setattr(Worker, "step", failing)
        monkeypatch.setattr(Coordinator, "close", refused)
        with pytest.raises(JobError, match="ValueError: it happens"):
            run(log, copying(log))

    def test_rows_that_a_worker_cannot_give_at_the_end_are_not_left_out(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tables = Worker.tables

        def failing(self: Any) -> Any:
            if self.index == 1:
                message = "too many of them"
                raise MemoryError(message)
            return tables(self)

        monkeypatch.setattr(Worker, "tables", failing)
        options = RunOptions(parallelism=2, until="end", fresh=True)
        with pytest.raises(JobError, match="worker 1 failed: MemoryError: too many of them"):
            run_job(collecting(ms.stream("events", log=log)), log, options)

    def test_what_the_callback_raises_ends_the_run(self, log: Log) -> None:
        def on_status(record: JobRecord) -> None:
            message = "no more"
            raise RuntimeError(message)

        with pytest.raises(RuntimeError, match="no more"):
            run(log, copying(log), on_status, until=None)
        assert is_decided(log)
