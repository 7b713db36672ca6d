"""Jobs on a real Ray: what dies is replaced, and the output is the model's."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import JobError
from millstream.log import Log
from millstream.runtime.control import JobRecord, JobState
from millstream.runtime.handle import JobHandle
from millstream.runtime.hosts.remote_fleet import Patience
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import RestartStrategy
from tests.runtime.hosts.ray_kit import end, own_network
from tests.runtime.late_flights import OUTPUTS, compiler, expected, load, outcome

ray_host: Any = pytest.importorskip("millstream.runtime.hosts.ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

ROWS = 12_000
LATENESS_US = 600_000_000


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    import ray

    with own_network():
        ray_host.connect(ray_host.RaySettings())
        yield
        ray.shutdown()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "log")
    load(made, random.Random(7), count=ROWS, partitions=4)
    return made


def submit(log: Log, parallelism: int, *, rows: int = 20, **settings: Any) -> JobHandle:
    options = RunOptions(
        parallelism=parallelism,
        until="end",
        run=f"run-{parallelism}",
        checkpoint_interval_us=100_000,
        batch_rows=rows,
    )
    settings.setdefault("restart", RestartStrategy(first_delay_us=1_000))
    handle: JobHandle = ray_host.submit_job(
        compiler(log, "10m"), log, options, ray_host.RaySettings(**settings)
    )
    return handle


def wait_until(handle: JobHandle, holds: Callable[[JobRecord], bool]) -> JobRecord:
    """Wait until the job's record says so."""
    deadline = time.monotonic() + 60
    while not holds(record := handle.status()):
        assert time.monotonic() < deadline, record
        assert not record.state.is_over, record
        time.sleep(0.02)
    return record


def mid_run(record: JobRecord, attempt: int | None = None) -> bool:
    """Two checkpoints are done, and rows are on their way."""
    read = sum(each.rows_read for each in record.workers)
    return (
        record.state is JobState.RUNNING
        and attempt in {None, record.attempt}
        and record.checkpoints >= 2
        and 0 < read < ROWS
        and all(each.pid for each in record.workers)
    )


def check(log: Log) -> None:
    """The output is the model's, and nothing is left open."""
    reader = Log(log.path)
    assert outcome(reader) == expected(reader, LATENESS_US)
    for name in OUTPUTS:
        topic = reader.topic(name)
        assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_killed_workers_are_replaced(log: Log, parallelism: int) -> None:
    handle = submit(log, parallelism)
    before = wait_until(handle, mid_run)
    end(random.Random(parallelism).choice(before.workers).pid, signal.SIGKILL)
    after = wait_until(handle, lambda record: record.attempt >= 2)
    assert after.restored is not None
    assert after.restored >= (before.checkpoint or 0)
    result = handle.wait(60)
    assert result is not None
    assert result.restarts >= 1
    assert result.restored is not None
    check(log)


def test_a_killed_coordinator_comes_back(log: Log) -> None:
    handle = submit(log, 2)
    before = wait_until(handle, mid_run)
    end(before.pid, signal.SIGKILL)
    after = wait_until(handle, lambda record: record.pid != before.pid and bool(record.epoch))
    assert after.restored is not None
    assert handle.wait(60) is not None
    check(log)


def test_a_stopped_worker_is_given_up_and_its_rows_are_never_seen(log: Log) -> None:
    handle = submit(log, 2, patience=Patience(answer_s=1.0))
    before = wait_until(handle, mid_run)
    pid = before.workers[0].pid
    end(pid, signal.SIGSTOP)
    try:
        after = wait_until(handle, lambda record: record.attempt >= 2)
        assert after.restored is not None
    finally:
        end(pid, signal.SIGCONT)
    assert handle.wait(60) is not None
    check(log)


def test_a_job_that_always_fails_is_failed_with_the_reason(log: Log) -> None:
    handle = submit(log, 2, restart=RestartStrategy(failures_max=1, first_delay_us=1_000))
    for attempt in (1, 2):
        record = wait_until(handle, partial(mid_run, attempt=attempt))
        end(record.workers[1].pid, signal.SIGKILL)
    with pytest.raises(JobError, match=r"worker 1 .* died"):
        handle.wait(60)
    assert handle.status().state is JobState.FAILED
    assert "worker 1" in str(handle.status().reason)
    for name in OUTPUTS:
        topic = Log(log.path).topic(name)
        assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"


@pytest.mark.parametrize("how", ["stop", "drain", "cancel"])
def test_a_job_ends_as_it_is_told(log: Log, how: str) -> None:
    handle = submit(log, 2)
    wait_until(handle, mid_run)
    getattr(handle, how)()
    if how == "cancel":
        with pytest.raises(JobError, match="was cancelled"):
            handle.wait(60)
    else:
        result = handle.wait(60)
        assert result is not None
        assert result.finished is (how == "drain")
    for name in OUTPUTS:
        topic = Log(log.path).topic(name)
        assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"
    states = {"stop": JobState.STOPPED, "drain": JobState.FINISHED, "cancel": JobState.CANCELLED}
    assert handle.status().state is states[how]
