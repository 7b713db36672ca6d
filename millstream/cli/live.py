"""The live view of a running job: what each worker has read, how fast, and how far behind it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from millstream.cli.console import notes
from millstream.clock import Clock, SystemClock
from millstream.runtime.worker import WorkerStatus

RATE_WINDOW_US = 1_000_000
"""A rate is taken over at least this long, so that it can be read."""


@dataclass(slots=True)
class _Rate:
    """Rows a second of one worker, over the last second or so and over the whole run."""

    start_us: int
    since_us: int
    since_rows: int = 0
    recent: float = 0.0

    def update(self, rows: int, now_us: int) -> None:
        elapsed_us = now_us - self.since_us
        if elapsed_us >= RATE_WINDOW_US:
            self.recent = (rows - self.since_rows) * 1_000_000 / elapsed_us
            self.since_us, self.since_rows = now_us, rows

    def shown(self, rows: int, now_us: int, *, final: bool) -> float:
        whole_run = rows * 1_000_000 / max(now_us - self.start_us, 1)
        return whole_run if final or self.recent == 0.0 else self.recent


class LiveView:
    """Shows worker statuses as they come, inside `with`; a pipe sees the last state only.

    Parameters
    ----------
    title
        What is running.
    console
        Where to; by default standard error, so that results can be piped.
    """

    def __init__(self, title: str, *, console: Console = notes, clock: Clock | None = None) -> None:
        self._title = title
        self._clock = clock or SystemClock()
        self._statuses: Sequence[WorkerStatus] = ()
        self._rates: dict[int, _Rate] = {}
        self._start_us = self._clock.monotonic_us()
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._render)
        self._final = False

    def __enter__(self) -> Self:
        """Start showing."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Show the rates of the whole run, and stop."""
        self._final = True
        self._live.stop()
