"""Which failures are followed by another attempt, and how soon."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import (
    CheckpointError,
    CorruptSegmentError,
    FencedError,
    JobCancelledError,
    JobError,
    LogError,
    OptionError,
)
from millstream.runtime.restart import Restarts, RestartStrategy

LOST = JobError("a worker died")


def test_delays_double_up_to_the_longest() -> None:
    restarts = Restarts(RestartStrategy(first_delay_us=100, max_delay_us=500))
    assert [restarts.on_failure(LOST, now_us) for now_us in range(5)] == [100, 200, 400, 500, 500]


def test_too_many_failures_within_the_window_are_the_end() -> None:
    restarts = Restarts(RestartStrategy(failures_max=2, window_us=100, first_delay_us=1))
    times = [0, 50, 101, 160, 170]
    assert [restarts.on_failure(LOST, now_us) for now_us in times] == [1, 2, 2, 2, None]


@pytest.mark.parametrize("error", [LOST, LogError("x"), OSError("x"), ValueError("x")])
def test_what_may_pass_is_tried_again(error: BaseException) -> None:
    assert Restarts(RestartStrategy()).on_failure(error, 0) is not None


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("a file of it is missing"),
        FencedError("another run"),
        JobCancelledError("cancelled"),
        OptionError("wrong"),
        CorruptSegmentError("damaged"),
        KeyboardInterrupt(),
    ],
)
def test_what_will_not_pass_is_not_tried_again(error: BaseException) -> None:
    assert Restarts(RestartStrategy()).on_failure(error, 0) is None


def test_a_job_may_never_be_restarted() -> None:
    assert Restarts(RestartStrategy(failures_max=0)).on_failure(LOST, 0) is None


@pytest.mark.parametrize("name", ["failures_max", "window_us", "first_delay_us", "max_delay_us"])
def test_negative_numbers_are_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: -1}
    with pytest.raises(OptionError, match="no negative numbers"):
        RestartStrategy(**wrong)
