"""Workers in other processes: commands and reports once each, whatever is lost on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from millstream.clock import ManualClock
from millstream.errors import JobError
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.hosts.remote_fleet import (
    Patience,
    RemoteFleet,
    WorkerDeadError,
    WorkerUnreachableError,
)
from millstream.runtime.hosts.worker_actor import Answer
from millstream.runtime.hosts.worker_thread import WorkerFailed
from millstream.runtime.messages import Command, Finish, Report, SourcesDone, StartCheckpoint
from millstream.runtime.result import WorkerResult

WAIT_S = 20.0
Poll = Callable[[int, Sequence[tuple[int, Command]]], Answer]


class FakeWorker:
    """Answers polls as the test says."""

    def __init__(self, poll: Poll, *, result: bool = True) -> None:
        self.location = "grpc://here:1"
        self.begun: list[Sequence[str]] = []
        self._poll = poll
        self._result = result

    def begin(self, locations: Sequence[str]) -> None:
        self.begun.append(locations)

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        return self._poll(received, commands)

    def finish(self) -> WorkerResult | None:
        return WorkerResult(WorkerStatus(0), {}, {}) if self._result else None


@contextmanager
def fleet_of(*workers: FakeWorker, clock: ManualClock | None = None) -> Iterator[RemoteFleet]:
    fleet = RemoteFleet(workers, clock or ManualClock(), Patience(answer_s=5, advance_s=30))
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.abandon()
        for each in threading.enumerate():
            if each.name.startswith("poll-"):
                each.join(WAIT_S)


def answer(*reports: tuple[int, Report], turns: int = 1, waiting: bool = False) -> Answer:
    return Answer(reports, WorkerStatus(0, pid=77, node="there", waiting=waiting), turns)


def test_everybody_learns_where_all_are_before_anybody_is_polled() -> None:
    workers = [FakeWorker(lambda *_: answer()) for _ in range(2)]
    with fleet_of(*workers):
        assert [each.begun for each in workers] == [[["grpc://here:1"] * 2]] * 2


def test_a_command_is_handed_over_until_an_answer_says_that_it_arrived() -> None:
    heard: list[tuple[int, Command]] = []
    done = threading.Event()

    def poll(received: int, commands: Sequence[tuple[int, Command]]) -> Answer:
        heard.extend(commands)
        if len(heard) in {1, 2}:
            message = "the answer was lost"
            raise WorkerUnreachableError(message)
        if heard and not commands:
            done.set()
        return answer()

    with fleet_of(FakeWorker(poll)) as fleet:
        fleet.command(StartCheckpoint(5))
        assert done.wait(WAIT_S)
        fleet.command(Finish())
    assert heard[:3] == [(1, StartCheckpoint(5))] * 3
    assert [each for each in heard[3:] if each[0] != 2] == []


def test_a_report_that_comes_again_is_taken_once() -> None:
    returned: list[int] = []

    def poll(received: int, commands: Sequence[tuple[int, Command]]) -> Answer:
        returned.append(received)
        return answer((1, SourcesDone(0)), *([(2, SourcesDone(1))] if len(returned) > 3 else []))

    with fleet_of(FakeWorker(poll)) as fleet:
        reports = [fleet.next_report(WAIT_S) for _ in range(2)]
        assert fleet.next_report(0.01) is None
    assert reports == [SourcesDone(0), SourcesDone(1)]
    assert returned[0] == 0
    assert returned[-1] == 2


def failure_of(fleet: RemoteFleet) -> JobError:
    failed = fleet.next_report(WAIT_S)
    assert isinstance(failed, WorkerFailed)
    assert isinstance(failed.error, JobError)
    assert (failed.worker, failed.error.worker) == (0, 0)
    return failed.error


def test_a_worker_that_does_not_answer_for_too_long_is_given_up() -> None:
    polls = iter(range(10**6))

    def poll(received: int, commands: Sequence[tuple[int, Command]]) -> Answer:
        if next(polls) == 0:
            return answer()
        message = "no route"
        raise WorkerUnreachableError(message)

    with fleet_of(FakeWorker(poll)) as fleet:
        text = str(failure_of(fleet))
    assert text.startswith("worker 0 (process 77 on there) did not answer for 5.0 s")
    assert "no route" in text


def test_a_dead_worker_is_given_up_at_once() -> None:
    def poll(received: int, commands: Sequence[tuple[int, Command]]) -> Answer:
        message = "killed"
        raise WorkerDeadError(message)

    clock = ManualClock()
    with fleet_of(FakeWorker(poll), clock=clock) as fleet:
        assert str(failure_of(fleet)) == "worker 0 died: killed"
    assert clock.monotonic_us() == 0


@pytest.mark.parametrize(
    ("first_turn", "turning", "reason"),
    [
        (0, 0, "has not begun for 600 s"),
        (1, 0, "hangs in one piece of work for 30 s"),
        (1, 1, "has moved none of the rows that wait for it for 30 s"),
    ],
)
def test_a_worker_that_answers_and_stands_still_is_given_up(
    first_turn: int, turning: int, reason: str
) -> None:
    clock = ManualClock()
    turns = iter(range(first_turn, 10**6))

    def poll(received: int, commands: Sequence[tuple[int, Command]]) -> Answer:
        clock.sleep_us(1_000_000)
        return answer(turns=next(turns) if turning else first_turn, waiting=True)

    with fleet_of(FakeWorker(poll), clock=clock) as fleet:
        assert f"answers but {reason}" in str(failure_of(fleet))


@pytest.mark.parametrize("complete", [True, False])
def test_a_worker_without_a_result_is_an_error_where_the_run_came_to_its_end(
    complete: bool,
) -> None:
    workers = [FakeWorker(lambda *_: answer(), result=result) for result in (True, False)]
    with fleet_of(*workers) as fleet:
        if complete:
            with pytest.raises(JobError, match="worker 1 could not give its result at the end"):
                fleet.results(complete=True)
        else:
            assert len(fleet.results(complete=False)) == 1
