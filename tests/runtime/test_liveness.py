"""When a worker that answers is given up all the same."""

from __future__ import annotations

from dataclasses import replace

from millstream.runtime.activity import OperatorStatus, WorkerStatus
from millstream.runtime.liveness import Liveness

IDLE = WorkerStatus(0)
WAITING = WorkerStatus(0, waiting=True)
STUCK = "has moved none of the rows that wait for it"
HANGS = "hangs in one piece of work"


def test_a_worker_may_be_idle_for_ever() -> None:
    liveness = Liveness(10, 100)
    assert [liveness.stands_still(each, IDLE, 9 * each) for each in range(1, 50)] == [None] * 49


def test_a_thread_that_does_not_come_round_hangs() -> None:
    liveness = Liveness(10, 100)
    assert liveness.stands_still(1, IDLE, 0) is None
    assert liveness.stands_still(2, IDLE, 5) is None
    assert liveness.stands_still(2, IDLE, 14) is None
    assert liveness.stands_still(2, IDLE, 15) == HANGS
    assert liveness.stands_still(3, IDLE, 16) is None


def test_rows_that_wait_are_to_be_moved() -> None:
    liveness = Liveness(10, 100)
    assert liveness.stands_still(1, WAITING, 0) is None
    assert liveness.stands_still(2, WAITING, 9) is None
    assert liveness.stands_still(3, WAITING, 10) == STUCK


def test_a_worker_that_waited_for_nothing_has_all_its_time_from_then_on() -> None:
    liveness = Liveness(10, 100)
    assert liveness.stands_still(1, WAITING, 0) is None
    assert liveness.stands_still(2, IDLE, 9) is None
    assert liveness.stands_still(3, WAITING, 18) is None
    assert liveness.stands_still(4, WAITING, 19) == STUCK


def test_each_kind_of_progress_counts() -> None:
    operator = OperatorStatus(1, 0, 0, 0, 0, 0, 0, 0)
    moved = [
        WAITING,
        replace(WAITING, rows_read=1),
        replace(WAITING, rows_read=1, rows_written=1),
        replace(WAITING, rows_read=1, rows_written=1, operators={"window": operator}),
        replace(
            WAITING,
            rows_read=1,
            rows_written=1,
            operators={"window": replace(operator, rows_out=1)},
        ),
    ]
    liveness = Liveness(10, 100)
    for number, status in enumerate(moved):
        assert liveness.stands_still(1 + number, status, 9 * number) is None
    assert liveness.stands_still(9, moved[-1], 9 * len(moved) + 1) == STUCK


def test_a_worker_may_take_its_time_to_begin() -> None:
    # It reads its state before its thread comes round first.
    liveness = Liveness(10, 100)
    assert [liveness.stands_still(0, IDLE, each) for each in (0, 50, 99)] == [None] * 3
    assert liveness.stands_still(0, IDLE, 100) == "has not begun"
    begun = Liveness(10, 100)
    assert begun.stands_still(0, IDLE, 89) is None
    assert begun.stands_still(1, WAITING, 90) is None
    assert begun.stands_still(2, WAITING, 98) is None
    assert begun.stands_still(3, WAITING, 99) == STUCK
