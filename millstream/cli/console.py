"""Where the command line writes: results to standard output, everything else to standard error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rich.console import Console

out = Console(highlight=False)
"""Results: what a pipe should receive."""

notes = Console(stderr=True, highlight=False)
"""Progress, notices and errors."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
