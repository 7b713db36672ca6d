"""Numbers of appends that no other append has, from whatever client: so each is stored once."""

from __future__ import annotations

import itertools
import secrets
import threading

COUNT_BITS = 23
CLIENT_BITS = 40


class Sequences:
    """The numbers of a client: 40 random bits that are its own, and 23 that count.

    Any thread may take one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = self._begin()

    def next(self) -> int:
        """Return a number that was never returned, here or elsewhere."""
        with self._lock:
            number = next(self._numbers, None)
            if number is None:
                self._numbers = self._begin()
                number = next(self._numbers)
            return number

    @staticmethod
    def _begin() -> itertools.islice[int]:
        first = secrets.randbits(CLIENT_BITS) << COUNT_BITS
        return itertools.islice(itertools.count(first), 1 << COUNT_BITS)


def client_of(sequence: int) -> int:
    """Return the part of a number that all numbers of a client have in common, mostly."""
    return sequence >> COUNT_BITS
