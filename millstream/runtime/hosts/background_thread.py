"""A thread that does a worker's appends while the worker computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

WAITING_BYTES_MAX = 32 * 1024 * 1024


class BackgroundThread:
    """One thread, bounded in the bytes of what waits for it.

    Parameters
    ----------
    name
        Of the thread.
    wake
        Called when there is room again.
    """

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._wake = wake
        # Each is written by one thread only, so that no lock is needed.
        self._given_bytes = 0
        self._done_bytes = 0

    def has_room(self) -> bool:
        """Return `True` iff less than its limit waits."""
        return self._given_bytes - self._done_bytes < WAITING_BYTES_MAX

    def submit(self, work: Callable[[], T], size_bytes: int = 0) -> Future[T]:
        """Let the thread do the work after all that it was given before."""
        self._given_bytes += size_bytes

        def run() -> T:
            try:
                return work()
            finally:
                self._done_bytes += size_bytes
                # Asked after the count has changed: who found no room before is woken.
                if self._given_bytes - self._done_bytes + size_bytes >= WAITING_BYTES_MAX:
                    self._wake()

        return self._pool.submit(run)

    def close(self) -> None:
        """Wait for what it was given, and end the thread."""
        self._pool.shutdown(wait=True)
