"""Exchanges of one attempt, for tests of what passes between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from millstream.errors import JobError
from millstream.runtime.hosts.flight import FlightExchange
from millstream.runtime.messages import Message

TIMEOUT_S = 20.0
TOKEN = "the attempt's secret"


class Exchange:
    """A worker's end of the exchange, and what it said of itself."""

    def __init__(self, worker: int, limit_bytes: int = 1 << 20, **other: Any) -> None:
        self._something = threading.Condition()
        self.failures: list[JobError] = []
        given: dict[str, Any] = {"job": "job", "attempt": 3, "token": TOKEN, **other}
        self.flight = FlightExchange(
            worker=worker,
            limit_bytes=limit_bytes,
            wake=self._wake,
            on_failure=self._fail,
            **given,
        )

    def wait(self, holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
        """Wait for something that this exchange learns of; return whether it came to be."""
        deadline = time.monotonic() + timeout_s
        with self._something:
            while not holds():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._something.wait(left)
        return True

    def take(self, exchange: str, sender: int) -> Message:
        """Take the next message of a channel, waiting for it."""
        inlet = self.flight.inlet(exchange, sender)
        assert self.wait(lambda: inlet.peek() is not None), self.failures
        return inlet.take()

    def failure(self) -> str:
        """Wait for the exchange to break; why it did."""
        assert self.wait(lambda: bool(self.failures)), "it did not break"
        return str(self.failures[0])

    def _wake(self) -> None:
        with self._something:
            self._something.notify_all()

    def _fail(self, error: JobError) -> None:
        with self._something:
            self.failures.append(error)
            self._something.notify_all()


@contextmanager
def exchanges(count: int, limit_bytes: int = 1 << 20) -> Iterator[list[Exchange]]:
    """The connected exchanges of `count` workers; at the end they are closed, all at once."""
    made = [Exchange(worker, limit_bytes) for worker in range(count)]
    locations = [each.flight.location for each in made]
    for each in made:
        each.flight.connect(locations)
    with ExitStack() as stack:
        stack.callback(close_all, made)
        yield made


def close_all(made: Sequence[Exchange]) -> float:
    """Close exchanges at the same time; return how long that took."""
    start = time.monotonic()
    for each in made:
        each.flight.closing = True
    threads = [threading.Thread(target=each.flight.close) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - start
