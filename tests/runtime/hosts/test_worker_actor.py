"""What a worker's process does, however often and however late it is called."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import ExchangeError, JobError, OptionError
from millstream.log import Log
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.hosts.worker_actor import WorkerHost
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.messages import Command, Finished, Report, StartCheckpoint
from millstream.runtime.options import RunOptions
from millstream.runtime.result import WorkerResult
from millstream.runtime.worker import WorkerPlan
from tests.runtime.hosts.unreliable import end
from tests.runtime.late_flights import compiler, load


class Thread:
    """In the place of a worker's thread: takes note of what it is told."""

    made: list[Thread]

    def __init__(self, plan: WorkerPlan, *, post: Any, **rest: Any) -> None:
        self.status = WorkerStatus(plan.worker)
        self.result: WorkerResult | None = None
        self.turns = 0
        self.post = post
        self.started = 0
        self.stopped = False
        self.commands: list[Command] = []
        self.made.append(self)

    def start(self) -> None:
        self.started += 1

    def command(self, command: Command) -> None:
        self.commands.append(command)

    def stop(self) -> None:
        self.stopped = True

    def join(self) -> None:
        self.result = WorkerResult(self.status, {}, {})


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[Thread]:
    """The threads that hosts make."""
    Thread.made = []
    monkeypatch.setattr("millstream.runtime.hosts.worker_actor.WorkerThread", Thread)
    return Thread.made


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "log")
    load(made, random.Random(1), count=10, partitions=1)
    return made


@pytest.fixture
def plan(log: Log) -> WorkerPlan:
    return Coordinator(compiler(log, "1h"), log, RunOptions()).start()[0]


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    made = WorkerHost("127.0.0.1")
    yield made
    end(made)


def begun(host: WorkerHost, plan: WorkerPlan, log: Log, attempt: int = 1) -> None:
    location = host.prepare(attempt, plan, log.path, "token")
    host.begin(attempt, [location])


def numbered(*numbers: int) -> list[tuple[int, Command]]:
    return [(number, StartCheckpoint(number)) for number in numbers]


def test_a_command_is_obeyed_once(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    host.poll(1, 0, numbered(1), 0)
    host.poll(1, 0, numbered(1, 2), 0)
    host.poll(1, 0, numbered(1, 2, 3), 0)
    host.poll(1, 0, numbered(1), 0)  # late
    host.poll(1, 0, numbered(4), 0)
    assert threads[0].commands == [StartCheckpoint(each) for each in (1, 2, 3, 4)]


def test_a_report_is_repeated_until_its_number_comes_back(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    reports: list[Report] = [Finished(each) for each in range(3)]
    threads[0].post(reports[0])
    assert host.poll(1, 0, (), 0).reports == ((1, reports[0]),)
    threads[0].post(reports[1])
    assert host.poll(1, 0, (), 0).reports == ((1, reports[0]), (2, reports[1]))
    assert host.poll(1, 1, (), 0).reports == ((2, reports[1]),)
    assert host.poll(1, 0, (), 0).reports == ((2, reports[1]),), "a late call brings nothing back"
    assert host.poll(1, 2, (), 0).reports == ()
    threads[0].post(reports[2])
    assert host.poll(1, 2, (), 0).reports == ((3, reports[2]),)


def test_an_answer_says_where_the_worker_is(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    threads[0].turns = 5
    answer = host.poll(1, 0, (), 0)
    assert (answer.turns, answer.status) == (
        5,
        WorkerStatus(0, pid=os.getpid(), node="127.0.0.1"),
    )


def test_what_cannot_be_sent_is_reported_as_text(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    class UnknownElsewhereError(Exception):
        pass

    begun(host, plan, log)
    threads[0].post(WorkerFailed(0, UnknownElsewhereError("no")))
    ((_, report),) = host.poll(1, 0, (), 0).reports
    assert isinstance(report, WorkerFailed)
    assert type(report.error) is JobError
    assert str(report.error) == "worker 0 failed: UnknownElsewhereError: no"


def test_a_broken_stream_is_reported(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    assert host._process is not None
    host._process._exchange.fail("worker 1 is gone")
    ((_, report),) = host.poll(1, 0, (), 0).reports
    assert isinstance(report, WorkerFailed)
    assert isinstance(report.error, ExchangeError)


def test_to_prepare_and_to_begin_twice_changes_nothing(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    first = host.prepare(1, plan, log.path, "token")
    assert host.prepare(1, plan, log.path, "token") == first
    host.begin(1, [first])
    host.begin(1, [first])
    assert host.prepare(1, plan, log.path, "token") == first
    assert [each.started for each in threads] == [1]


def test_a_new_attempt_ends_the_one_before(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    threads[0].post(Finished(0))
    host.poll(1, 0, numbered(1), 0)
    begun(host, plan, log, attempt=2)
    assert threads[0].stopped
    # Numbers begin anew.
    answer = host.poll(2, 0, numbered(1), 0)
    assert answer.reports == ()
    assert threads[1].commands == [StartCheckpoint(1)]


def test_a_call_of_an_attempt_that_is_over_is_refused(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    begun(host, plan, log, attempt=2)
    for call in (
        lambda: host.prepare(1, plan, log.path, "token"),
        lambda: host.begin(1, []),
        lambda: host.poll(1, 0, numbered(1), 0),
        lambda: host.finish(1),
    ):
        with pytest.raises(JobError, match="a call of attempt 1 came in attempt 2"):
            call()
    assert threads[1].commands == []
    assert not threads[1].stopped


def test_a_call_of_an_attempt_that_is_not_prepared_is_refused(host: WorkerHost) -> None:
    with pytest.raises(JobError, match="a call of attempt 1 came in attempt 0"):
        host.poll(1, 0, (), 0)


def test_a_worker_that_did_not_begin_has_no_result(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    host.prepare(1, plan, log.path, "token")
    assert host.finish(1) is None


def test_the_result_can_be_asked_for_again(
    host: WorkerHost, plan: WorkerPlan, log: Log, threads: list[Thread]
) -> None:
    begun(host, plan, log)
    result = host.finish(1)
    assert result is not None
    assert result.status.pid == os.getpid()
    assert host.finish(1) == result


def test_a_log_that_is_not_there_is_the_users_to_put_right(
    host: WorkerHost, plan: WorkerPlan, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=r"does not see the log .* a file system that all"):
        host.prepare(1, plan, str(tmp_path / "elsewhere"), "token")
