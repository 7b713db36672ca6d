"""Calls of async functions in a simulation: made at some later step, without an event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from millstream.errors import JobError
from millstream.operators.lookup import Answers, Arguments
from millstream.operators.user_function import AsyncFunction


class _Later:
    def __init__(self, function: AsyncFunction, calls: Sequence[Arguments]) -> None:
        self._function = function
        self._calls = list(calls)
        self._answers: Answers | None = None if calls else []

    def run(self) -> None:
        self._answers = [_answer(self._function, each) for each in self._calls]

    def done(self) -> bool:
        return self._answers is not None

    def result(self) -> Answers:
        assert self._answers is not None, "nobody waits in a simulation"
        return self._answers


class SimulatedLookups:
    """What one worker asked, to be answered as an event."""

    def __init__(self) -> None:
        self.waiting: deque[_Later] = deque()

    def submit(self, function: AsyncFunction, calls: Sequence[Arguments]) -> _Later:
        """Let calls be made later."""
        later = _Later(function, calls)
        if not later.done():
            self.waiting.append(later)
        return later

    def run_next(self) -> None:
        """Make the calls that were asked for first."""
        self.waiting.popleft().run()


def _answer(function: AsyncFunction, arguments: Arguments) -> Any:
    failed: Exception | None = None
    for _ in range(function.attempts):
        call = function.function(*arguments)
        try:
            call.__await__().send(None)
        except StopIteration as answered:
            return answered.value
        except Exception as error:
            failed = error
        else:
            message = "in a simulation there is nothing to wait for"
            raise JobError(message)
    return failed
