"""The live view of a running job: how each worker gets on, and what holds the job back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from millstream.cli.compilation import CompilationWatch
from millstream.cli.console import (
    bytes_text,
    duration_text,
    notes,
    plain_table,
    state_text,
    table_width,
    time_text,
)
from millstream.clock import Clock, SystemClock
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.control import JobRecord

RATE_INTERVAL_US = 1_000_000
"""A rate is taken over at least this long, so that it can be read."""

REFRESH_PER_SECOND = 8

COMPILING = "compiling kernels, only this once: the next run finds them on disk"


@dataclass(frozen=True, slots=True)
class _Done:
    """What one worker had read by a moment, and how it had spent its time."""

    at_us: int
    rows: int = 0
    busy_us: int = 0
    backpressured_us: int = 0
    idle_us: int = 0

    def since(self, before: _Done) -> _Done:
        """Return what was done between two moments; `at_us` is then a duration."""
        return _Done(
            self.at_us - before.at_us,
            self.rows - before.rows,
            self.busy_us - before.busy_us,
            self.backpressured_us - before.backpressured_us,
            self.idle_us - before.idle_us,
        )


@dataclass(slots=True)
class _Pace:
    """How fast one worker is, over the whole run and lately."""

    start: _Done
    since: _Done
    now: _Done
    recent: _Done | None = None

    def update(self, now: _Done) -> None:
        """Take note of what was done by now."""
        self.now = now
        if now.at_us - self.since.at_us >= RATE_INTERVAL_US:
            self.recent, self.since = now.since(self.since), now

    def whole(self, until_us: int) -> _Done:
        """Return what was done since the run began; nothing may be read any more at its end."""
        return _Done(until_us, *self._counts()).since(self.start)

    def _counts(self) -> tuple[int, int, int, int]:
        now = self.now
        return now.rows, now.busy_us, now.backpressured_us, now.idle_us


class LiveView:
    """Shows a run's records as they come, inside `with`.

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
        self._record: JobRecord | None = None
        self._statuses: Sequence[WorkerStatus] = ()
        self._paces: dict[int, _Pace] = {}
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

    def update(self, record: JobRecord) -> None:
        """Take the run's newest record: the callback of a run."""
        self._compilation.start()
        self._record = record
        # While the next attempt waits for processes, what the last one did is still of interest.
        self._statuses = record.workers or self._statuses
        now_us = self._clock.monotonic_us()
        for status in record.workers:
            done = _Done(
                now_us, status.rows_read, status.busy_us, status.backpressured_us, status.idle_us
            )
            pace = self._paces.get(status.worker)
            if pace is None or done.rows < pace.now.rows:
                # The first one of this run, of another attempt or of another run in the script.
                began = _Done(now_us)
                pace = self._paces[status.worker] = _Pace(began, began, began)
            pace.update(done)

    def _pace_of(self, status: WorkerStatus) -> _Done:
        """Return what a worker did: lately while the job runs, in the whole run at its end."""
        pace = self._paces[status.worker]
        if self._ended_us is None and pace.recent is not None:
            return pace.recent
        return pace.whole(self._ended_us or self._clock.monotonic_us())

    def _render(self) -> RenderableType:
        if not self._statuses:
            return f"{self._title}: {self._waiting() or 'starting'}"
        table = self._table(watermarks=True)
        if table_width(table).maximum > self._console.width:
            table = self._table(watermarks=False)  # the least one stands below
        parts: list[RenderableType] = [table]
        parts += [each for each in (self._waiting(), self._held_by(), self._checkpoint()) if each]
        if self._compilation.running:
            parts.append(COMPILING)
        return Group(*parts)

    def _table(self, *, watermarks: bool) -> Table:
        table = plain_table(self._title)
        # One column for three shares, so that it fits a terminal of 80 columns.
        for heading in ("worker", "rows read", "rows/s", "lag", SHARES, "keys", "state"):
            table.add_column(heading, justify="right", no_wrap=True)
        statuses = self._statuses
        paces = [self._pace_of(each) for each in statuses]
        rows = [
            _cells(f"{each.worker}", [each], [pace])
            for each, pace in zip(statuses, paces, strict=True)
        ]
        if len(rows) > 1:
            rows.append(_cells("all", statuses, paces))
        if watermarks:
            table.add_column("watermark (UTC)", no_wrap=True)
        for row in rows:
            if row[0] == "all":
                table.add_section()
            table.add_row(*(row if watermarks else row[:-1]))
        return table

    def _waiting(self) -> str | None:
        """Say what the next attempt waits for, or why there is to be one."""
        record = self._record
        if record is None or not record.reason or record.state.is_over:
            return None
        return escape(f"{record.state.value}: {record.reason}")

    def _held_by(self) -> str | None:
        """Say where most time is spent, and whose watermark holds back the others."""
        record = self._record
        if record is None:
            return None
        slowest, holding = record.slowest_operator(), record.holding_partition()
        parts = []
        if slowest is not None:
            parts.append(f"slowest operator: {slowest}")
        watermark = _watermark_text(record.workers)
        if holding is not None and watermark != NO_TIME:
            parts.append(f"watermark: {watermark}, held by {holding}")
        return escape("; ".join(parts)) or None

    def _checkpoint(self) -> str | None:
        """Say how long ago the newest checkpoint was, and how much state it holds."""
        record = self._record
        if record is None or record.checkpoint_us is None:
            return None
        age = duration_text(self._clock.now_us() - record.checkpoint_us)
        size = bytes_text(record.checkpoint_bytes or 0)
        return f"checkpoint {record.checkpoint}: {age} ago, {size} of state"


NO_TIME = time_text(None)

SHARES = "busy/held/idle"
"""Held: by a worker downstream that has no room."""


def _cells(name: str, statuses: Sequence[WorkerStatus], paces: Sequence[_Done]) -> tuple[str, ...]:
    """Return the row of one worker, or of all."""
    operators = [operator for each in statuses for operator in each.operators.values()]
    return (
        name,
        f"{sum(each.rows_read for each in statuses):,}",
        f"{sum(each.rows * 1_000_000 / max(each.at_us, 1) for each in paces):,.0f}",
        f"{sum(each.lag_rows for each in statuses):,}",
        _shares_text(paces),
        f"{sum(each.state_keys for each in operators):,}",
        state_text(
            sum(each.state_bytes for each in operators),
            sum(each.state_disk_bytes for each in operators),
        ),
        _watermark_text(statuses),
    )


def _watermark_text(statuses: Sequence[WorkerStatus]) -> str:
    """Return the least watermark."""
    watermarks = [each.watermark_us for each in statuses if each.watermark_us is not None]
    return time_text(min(watermarks, default=None))


def _shares_text(paces: Sequence[_Done]) -> str:
    """Return which shares of the time were spent working, held up, and without rows."""
    spent = [
        sum(each.busy_us for each in paces),
        sum(each.backpressured_us for each in paces),
        sum(each.idle_us for each in paces),
    ]
    if not any(spent):
        return "–"
    return "/".join(f"{each * 100 / sum(spent):.0f}" for each in spent) + " %"
