"""The live view of a running job: what each worker read, how fast, how far behind it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live

from millstream.cli.compilation import CompilationWatch
from millstream.cli.console import notes, plain_table, time_text
from millstream.clock import Clock, SystemClock
from millstream.runtime.activity import WorkerStatus

RATE_INTERVAL_US = 1_000_000
"""A rate is taken over at least this long, so that it can be read."""

REFRESH_PER_SECOND = 8

COMPILING = "compiling kernels, only this once: the next run finds them on disk"


@dataclass(slots=True)
class _Rate:
    """Rows a second of one worker, of the whole run and lately."""

    start_us: int
    since_us: int
    since_rows: int = 0
    rows: int = 0
    recent: float | None = None

    def update(self, rows: int, now_us: int) -> None:
        """Take note of how many rows were read by now."""
        self.rows = rows
        elapsed_us = now_us - self.since_us
        if elapsed_us >= RATE_INTERVAL_US:
            self.recent = (rows - self.since_rows) * 1_000_000 / elapsed_us
            self.since_us, self.since_rows = now_us, rows


class LiveView:
    """Shows worker statuses as they come, inside `with`.

    A terminal is redrawn eight times a second; what is not one gets the last state only.

    Parameters
    ----------
    title
        What is running.
    console
        Where to; by default standard error, so that results can be piped.
    """

    def __init__(self, title: str, *, console: Console = notes, clock: Clock | None = None) -> None:
        self._title = title
        self._console = console
        self._clock = clock or SystemClock()
        self._statuses: Sequence[WorkerStatus] = ()
        self._rates: dict[int, _Rate] = {}
        self._ended_us: int | None = None
        self._compilation = CompilationWatch()
        # What is left on the screen is printed at the end, like any other line.
        self._live = Live(
            console=console,
            refresh_per_second=REFRESH_PER_SECOND,
            get_renderable=self._render,
            transient=True,
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
        """Stop, and leave the rates of the whole run; of a run that never began, nothing."""
        self._live.stop()
        self._compilation.stop()
        self._ended_us = self._clock.monotonic_us()
        if any(each.rows_read for each in self._statuses) or (self._statuses and kind is None):
            self._console.print(self._render())

    def update(self, statuses: Sequence[WorkerStatus]) -> None:
        """Take the workers' newest statuses: the callback of a run."""
        self._compilation.start()
        now_us = self._clock.monotonic_us()
        for status in statuses:
            rate = self._rates.get(status.worker)
            if rate is None or status.rows_read < rate.rows:
                # The first one of this run, or of another one in the same script.
                rate = self._rates[status.worker] = _Rate(now_us, now_us)
            rate.update(status.rows_read, now_us)
        self._statuses = list(statuses)

    def _rate_of(self, status: WorkerStatus) -> float:
        """Return rows a second: lately while the job runs, of the whole run at its end."""
        rate = self._rates[status.worker]
        if self._ended_us is None and rate.recent is not None:
            return rate.recent
        until_us = self._ended_us or self._clock.monotonic_us()
        return status.rows_read * 1_000_000 / max(until_us - rate.start_us, 1)

    def _render(self) -> RenderableType:
        if not self._statuses:
            return f"{self._title}: starting"
        table = plain_table(self._title)
        for heading in ("worker", "rows read", "rows/s", "lag (rows)"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("watermark (UTC)", no_wrap=True)
        statuses = self._statuses
        for each in statuses:
            table.add_row(*_cells(f"{each.worker}", each, self._rate_of(each)))
        if len(statuses) > 1:
            table.add_section()
            table.add_row(*_cells("all", _total(statuses), sum(map(self._rate_of, statuses))))
        return Group(table, COMPILING) if self._compilation.running else table


def _cells(name: str, status: WorkerStatus, rate: float) -> tuple[str, ...]:
    return (
        name,
        f"{status.rows_read:,}",
        f"{rate:,.0f}",
        f"{status.lag_rows:,}",
        time_text(status.watermark_us),
    )


def _total(statuses: Sequence[WorkerStatus]) -> WorkerStatus:
    """Return the whole job's status: its watermark is the least of its workers'."""
    watermarks = [each.watermark_us for each in statuses if each.watermark_us is not None]
    return WorkerStatus(
        len(statuses),
        rows_read=sum(each.rows_read for each in statuses),
        rows_written=sum(each.rows_written for each in statuses),
        watermark_us=min(watermarks, default=None),
        lag_rows=sum(each.lag_rows for each in statuses),
    )
