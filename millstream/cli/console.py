"""Where the command line writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import IO

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

PIPE_WIDTH = 200
"""Columns of what is not a terminal: a name that is cut there cannot be found again."""

TEXT_WIDTH = 100
"""Sentences are wrapped here, however wide the terminal is."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _console(stream: IO[str], *, stderr: bool) -> Console:
    fixed = "COLUMNS" in os.environ or stream.isatty()
    return Console(stderr=stderr, highlight=False, width=None if fixed else PIPE_WIDTH)


out = _console(sys.stdout, stderr=False)
"""Results: what a pipe should receive."""

notes = _console(sys.stderr, stderr=True)
"""Progress, notices and errors."""


def plain_table(title: str | None = None) -> Table:
    """Return an empty table as all of ours look: no frame, two blanks between columns."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def print_table(table: Table, console: Console = out) -> None:
    """Print a table; where names that may not be cut need more room, wider than the console."""
    needed = table_width(table).minimum
    if needed > console.width:
        console = Console(file=console.file, highlight=False, width=needed)
    console.print(table)


def table_width(table: Table) -> Measurement:
    """Return the least and the greatest width that a table can use, on any console."""
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table)


def print_indented(text: str, *, indent: int = 3) -> None:
    """Print a sentence as a result, indented and wrapped where it is still easy to read."""
    width = min(out.width, TEXT_WIDTH)
    out.print(Padding(text, (0, 0, 0, indent), expand=False), width=width)


def time_text(timestamp_us: int | None) -> str:
    """Return event time for a person, in UTC to the second; `–` where there is none.

    Watermarks before the first and after the last row lie outside the calendar.

    Examples
    --------
    >>> time_text(1_356_998_400_000_000)
    '2013-01-01 00:00:00'
    """
    if timestamp_us is None:
        return "–"
    try:
        moment = EPOCH + timedelta(microseconds=timestamp_us)
    except OverflowError:
        return "end" if timestamp_us > 0 else "–"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def duration_text(duration_us: int) -> str:
    """Return how long something has lasted, in its two largest units.

    Examples
    --------
    >>> duration_text(3_723_000_000), duration_text(900_000)
    ('1 h 2 min', '0 s')
    """
    seconds = max(duration_us, 0) // 1_000_000
    days, hours = seconds // 86_400, seconds // 3_600 % 24
    minutes, rest = seconds // 60 % 60, seconds % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rows_text(count: int) -> str:
    """Return a number of rows for a person.

    Examples
    --------
    >>> rows_text(1), rows_text(2_000)
    ('1 row', '2,000 rows')
    """
    return "1 row" if count == 1 else f"{count:,} rows"


def bytes_text(size_bytes: int) -> str:
    """Return a size for a person.

    Examples
    --------
    >>> bytes_text(25_690_112)
    '24.5 MiB'
    """
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def state_text(memory_bytes: int, disk_bytes: int) -> str:
    """Return what state takes for a person.

    Examples
    --------
    >>> state_text(2048, 0), state_text(2048, 3072)
    ('2.0 KiB', '2.0 KiB + 3.0 KiB on disk')
    """
    memory = bytes_text(memory_bytes)
    return f"{memory} + {bytes_text(disk_bytes)} on disk" if disk_bytes else memory
