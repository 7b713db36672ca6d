"""A fleet over a bad line: what is told and heard once, what broke a stream, who answers late."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import pytest

from millstream.clock import ManualClock, SystemClock
from millstream.errors import ExchangeError, JobError
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.hosts.remote_fleet import (
    Patience,
    RemoteFleet,
    WorkerDeadError,
    WorkerUnreachableError,
)
from millstream.runtime.hosts.worker_actor import Answer, Numbered
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.messages import Command, Finished, Report, StartCheckpoint
from millstream.runtime.result import WorkerResult

TIMEOUT_S = 20.0


class Played:
    """A worker whose answers the test gives; as a real one it obeys a number once."""

    def __init__(self, answers: Callable[[int], Answer | Exception] | None = None) -> None:
        self.location = "here"
        self.polls = 0
        self.obeyed: list[Command] = []
        self.begun: list[Sequence[str]] = []
        self.finishes: list[WorkerResult | Exception | None] = []
        self._number = 0
        self._answers = answers or (lambda _: answer())

    def begin(self, locations: Sequence[str]) -> None:
        self.begun.append(locations)

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        self.polls += 1
        given = self._answers(self.polls)
        if isinstance(given, Exception):
            raise given
        for number, command in commands:
            if number > self._number:
                self._number = number
                self.obeyed.append(command)
        return given

    def finish(self) -> WorkerResult | None:
        given = self.finishes.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


def answer(*reports: Numbered, turns: int = 1, waiting: bool = False, pid: int = 0) -> Answer:
    status = WorkerStatus(0, waiting=waiting, pid=pid, node="there" if pid else "")
    return Answer(reports, status, turns)


def fleet_of(*workers: Played, patience: Patience | None = None) -> RemoteFleet:
    """A fleet whose time passes only while it waits: what takes long is over at once."""
    fleet = RemoteFleet(workers, ManualClock(), patience or Patience())
    fleet.start()
    return fleet


def failure(fleet: RemoteFleet) -> str:
    """Wait until a worker is given up; why it was."""
    try:
        report = fleet.next_report(TIMEOUT_S)
        assert isinstance(report, WorkerFailed), report
        assert isinstance(report.error, JobError)
        return str(report.error)
    finally:
        fleet.abandon()


class Wire:
    """A worker that does as it is told, behind a wire that loses, repeats and delays."""

    def __init__(self, seed: int) -> None:
        self.location = "here"
        self.obeyed: list[Command] = []
        self._random = random.Random(seed)
        self._number = 0
        self._waiting: list[Numbered] = []
        self._late: list[tuple[int, tuple[tuple[int, Command], ...]]] = []

    def begin(self, locations: Sequence[str]) -> None:
        if self._random.random() < 0.5:
            raise WorkerUnreachableError

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        if self._late and self._random.random() < 0.2:
            self._carry_out(*self._late.pop(0))
        match self._random.randrange(6):
            case 0:
                raise WorkerUnreachableError  # lost on the way there
            case 1:
                self._late.append((received, tuple(commands)))
                raise WorkerUnreachableError
            case 2:
                self._carry_out(received, commands)
                raise WorkerUnreachableError  # lost on the way back
            case 3:
                self._carry_out(received, commands)
        return self._carry_out(received, commands)

    def finish(self) -> WorkerResult | None:
        return None

    def _carry_out(self, received: int, commands: Sequence[tuple[int, Command]]) -> Answer:
        self._waiting = [each for each in self._waiting if each[0] > received]
        for number, command in commands:
            if number > self._number:
                self._number = number
                self.obeyed.append(command)
                assert isinstance(command, StartCheckpoint)
                report = Finished(command.checkpoint)
                self._waiting.append((number, report))
        return Answer(tuple(self._waiting), WorkerStatus(0), 1)


@pytest.mark.parametrize("seed", range(10))
def test_commands_are_obeyed_once_and_reports_heard_once_and_in_order(seed: int) -> None:
    # An hour of patience: here nobody is given up. Pauses take no time on this clock.
    wire = Wire(seed)
    fleet = RemoteFleet([wire], ManualClock(), Patience(answer_s=3_600, advance_s=3_600))
    fleet.start()
    heard: list[Report | WorkerFailed] = []
    chooser = random.Random(seed)
    for checkpoint in range(60):
        fleet.command(StartCheckpoint(checkpoint))
        while len(heard) < checkpoint + 1 and chooser.random() < 0.7:
            report = fleet.next_report(TIMEOUT_S)
            assert report is not None
            heard.append(report)
    while len(heard) < 60:
        report = fleet.next_report(TIMEOUT_S)
        assert report is not None
        heard.append(report)
    assert fleet.results(complete=False) == []
    assert wire.obeyed == [StartCheckpoint(each) for each in range(60)]
    assert heard == [Finished(each) for each in range(60)]
    assert fleet.next_report(0) is None


def test_a_worker_that_dies_is_named_with_its_process_and_the_reason() -> None:
    def answers(poll: int) -> Answer | Exception:
        return answer(pid=4711) if poll == 1 else WorkerDeadError("killed by signal 9")

    reason = failure(fleet_of(Played(answers)))
    assert reason == "worker 0 (process 4711 on there) died: killed by signal 9"


def test_a_worker_that_answers_again_in_time_is_kept() -> None:
    polls = threading.Event()

    def answers(poll: int) -> Answer | Exception:
        if poll > 400:
            polls.set()
        # Silent for 1.95 s of 2 s, again and again.
        return WorkerUnreachableError("no") if poll % 40 else answer(turns=poll)

    fleet = fleet_of(Played(answers), patience=Patience(answer_s=2.0))
    assert polls.wait(TIMEOUT_S)
    fleet.abandon()
    assert fleet.next_report(0) is None


def test_an_answer_that_cannot_be_read_fails_the_worker() -> None:
    reason = failure(fleet_of(Played(lambda _: ValueError("what is this?"))))
    assert reason == "worker 0 cannot be asked: what is this?"


def test_a_broken_stream_is_reported_with_what_broke_it() -> None:
    broken = WorkerFailed(0, ExchangeError("the exchange of worker 0 broke"))
    fleet = fleet_of(
        Played(lambda poll: answer((1, broken), (2, Finished(0))) if poll == 1 else answer()),
        Played(lambda poll: answer() if poll == 1 else WorkerDeadError("out of memory")),
    )
    assert failure(fleet) == "worker 1 died: out of memory"


def test_a_broken_stream_without_a_cause_is_reported_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("millstream.runtime.hosts.remote_fleet.CAUSE_S", 0.05)
    broken = WorkerFailed(0, ExchangeError("the exchange of worker 0 broke"))
    worker = Played(lambda poll: answer((1, broken)) if poll == 1 else answer())
    # By the real clock: the cause is waited for in real time.
    fleet = RemoteFleet([worker], SystemClock(), Patience())
    fleet.start()
    assert failure(fleet) == "the exchange of worker 0 broke"


def test_statuses_are_the_newest() -> None:
    fleet = fleet_of(Played(lambda poll: answer((1, Finished(0)), pid=poll)))
    assert fleet.next_report(TIMEOUT_S) == Finished(0)
    (status,) = fleet.statuses()
    assert status.pid > 0
    fleet.abandon()


class TestTheEnd:
    def test_a_result_is_asked_for_until_it_comes(self) -> None:
        result = WorkerResult(WorkerStatus(0), {}, {})
        worker = Played()
        worker.finishes = [WorkerUnreachableError("lost"), WorkerUnreachableError("lost"), result]
        assert fleet_of(worker).results(complete=True) == [result]

    @pytest.mark.parametrize("error", [WorkerDeadError("gone"), WorkerUnreachableError("gone")])
    def test_a_worker_that_is_gone_at_the_end(self, error: Exception) -> None:
        result = WorkerResult(WorkerStatus(1), {}, {})

        def ended() -> RemoteFleet:
            first, second = Played(), Played()
            first.finishes, second.finishes = [error] * 1_000, [result]
            return fleet_of(first, second)

        # What is committed is committed; what is only in its memory is not.
        assert ended().results(complete=False) == [result]
        with pytest.raises(JobError, match=r"worker 0 di.*gone") as raised:
            ended().results(complete=True)
        assert raised.value.worker == 0

    def test_no_worker_is_polled_any_more(self) -> None:
        worker = Played()
        fleet = fleet_of(worker)
        fleet.abandon()
        worker.finishes = [None]
        fleet.results(complete=False)
        polls = worker.polls
        fleet.command(StartCheckpoint(1))
        assert worker.obeyed == []
        assert worker.polls == polls


def test_a_worker_that_cannot_begin_is_named() -> None:
    class Dead(Played):
        def begin(self, locations: Sequence[str]) -> None:
            message = "killed by signal 9"
            raise WorkerDeadError(message)

    fleet = RemoteFleet([Played(), Dead()], ManualClock(), Patience())
    with pytest.raises(JobError, match="worker 1 died: killed by signal 9") as raised:
        fleet.start()
    assert raised.value.worker == 1
