"""The live view of a running job: what each worker read, how fast, how far behind it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from millstream.cli.console import notes, time_text
from millstream.clock import Clock, SystemClock
from millstream.runtime.worker import WorkerStatus

RATE_INTERVAL_US = 1_000_000
"""A rate is taken over at least this long, so that it can be read."""


@dataclass(slots=True)
class _Rate:
    """Rows a second of one worker."""

    since_us: int
    since_rows: int = 0
    recent: float | None = None

    def update(self, rows: int, now_us: int) -> None:
        """Take note of how many rows were read by now."""
        elapsed_us = now_us - self.since_us
        if elapsed_us >= RATE_INTERVAL_US:
            self.recent = (rows - self.since_rows) * 1_000_000 / elapsed_us
            self.since_us, self.since_rows = now_us, rows


class LiveView:
    """Shows worker statuses as they come, inside `with`.

    A terminal is redrawn eight times a second; a pipe gets the last state only.

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
        self._ended_us: int | None = None
        self._live = Live(
            console=console, refresh_per_second=8, get_renderable=self._render, transient=False
        )

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
        self._ended_us = self._clock.monotonic_us()
        self._live.stop()

    def update(self, statuses: Sequence[WorkerStatus]) -> None:
        """Take the workers' newest statuses: the callback of a run."""
        now_us = self._clock.monotonic_us()
        for status in statuses:
            rate = self._rates.setdefault(status.worker, _Rate(self._start_us))
            rate.update(status.rows_read, now_us)
        self._statuses = list(statuses)

    def _rate_of(self, status: WorkerStatus) -> float:
        """Return rows a second: lately while the job runs, of the whole run at its end."""
        rate = self._rates[status.worker]
        if self._ended_us is None and rate.recent is not None:
            return rate.recent
        until_us = self._ended_us or self._clock.monotonic_us()
        return status.rows_read * 1_000_000 / max(until_us - self._start_us, 1)

    def _render(self) -> Table | str:
        if not self._statuses:
            return ""
        table = Table(title=self._title, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("worker", "rows read", "rows/s", "watermark (UTC)", "lag (rows)"):
            left = heading.startswith("watermark")
            table.add_column(heading, justify="left" if left else "right")
        for status in self._statuses:
            table.add_row(
                f"{status.worker}",
                f"{status.rows_read:,}",
                f"{self._rate_of(status):,.0f}",
                time_text(status.watermark_us),
                f"{status.lag_rows:,}",
            )
        return table
