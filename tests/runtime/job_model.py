"""Jobs of many shapes, built with the fluent surface and computed once more, row by row.

The model shares no code with the engine. A row there is a dict with times in seconds; beside it
stands its stamp, the watermark of its partition just before it, by which alone it is late.
Results of windows have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import millstream as ms
from millstream import col, lit
from millstream.log import Log
from millstream.windows.assignment import TimeWindow
from millstream.windows.session import Session

Row = dict[str, Any]
Shape = Literal["one", "both", "branched"]
JoinKind = Literal["inner", "left"]
Then = Literal["nothing", "results", "late rows", "united results"]
OUTPUTS = ("copies", "first", "first_late", "second", "second_late")


class Stamped(NamedTuple):
    """A row and its partition's watermark before it."""

    row: Row
    stamp_s: int | None


@dataclass(frozen=True)
class Window:
    """Windows by key, in seconds; without keys there is one group.

    Without a slide they tumble; with one of 0 they are sessions, the size being the gap.
    """

    keys: tuple[str, ...]
    size_s: int
    allowed_s: int = 0
    slide_s: int | None = None

    @property
    def result_time(self) -> str:
        """The column that is the time of results."""
        return "window_end" if self.slide_s == 0 else "window_start"

    def starts_s(self, time_s: int) -> list[int]:
        """The starts of the windows that hold a time."""
        slide_s = self.slide_s or self.size_s
        last_s = time_s // slide_s * slide_s
        starts = range(last_s, last_s - self.size_s, -slide_s)
        return [each for each in starts if time_s < each + self.size_s]


@dataclass(frozen=True)
class Job:
    """Two streams and a table in; results, and rows that came too late, out.

    Parameters
    ----------
    lateness_s
        Of both streams.
    shape
        Whether the windows see one stream, both, or one that was branched and united again.
    above
        Only values above this pass; `None`: all.
    join
        How the table is joined before the windows, and once more behind them.
    join_names
        How the table's names are joined before: as many of them as are a row's key in capitals.
    window
        Of the rows.
    then
        What is made of the windows: windows of their results, windows of the late rows, windows
        of the results of each stream united.
    second
        The windows behind `then`.
    """

    lateness_s: int
    shape: Shape
    above: int | None
    join: JoinKind | None
    join_names: JoinKind | None
    window: Window
    then: Then
    second: Window


def sinks(job: Job, log: Log) -> list[ms.Sink]:
    """The job as a user writes it."""
    one, two = (ms.stream(name, lateness=f"{job.lateness_s}s", log=log) for name in ("one", "two"))
    names = ms.table("names", key="key", log=log)
    rows = one.union(two) if job.shape == "both" else one
    if job.shape == "branched":
        even, rest = one.branch(col("value") % 2 == 0, lit(True))
        rows = even.union(rest)
    if job.above is not None:
        rows = rows.filter(col("value") > job.above)
    if job.join_names is not None:
        owners = names.rename({"key": "owner"})
        rows = rows.with_columns(capitals=col("key").str.upper()).join(
            owners, left_on="capitals", right_on="name", how=job.join_names
        )
    if job.join is not None:
        rows = rows.join(names, on="key", how=job.join)
    first = _windowed(rows, job.window).agg(n=ms.count(), total=ms.sum("value"))
    results: ms.Stream = first
    if job.join is not None and "key" in job.window.keys:
        results = first.join(names, on="key", how="left")
    ends = [rows.to("copies"), results.to("first"), first.late().to("first_late")]
    match job.then:
        case "nothing":
            return ends
        case "late rows":
            second = _windowed(first.late(), job.second).agg(rows=ms.count(), total=ms.sum("value"))
        case "results":
            second = _windowed(first, job.second).agg(rows=ms.count(), total=ms.sum("n"))
        case "united results":
            other = _windowed(two, job.window).agg(n=ms.count(), total=ms.sum("value"))
            both = _windowed(first.union(other), job.second)
            second = both.agg(rows=ms.count(), total=ms.sum("n"))
    return [*ends, second.to("second"), second.late().to("second_late")]


def _windowed(rows: ms.Stream, window: Window) -> ms.WindowedStream:
    keyed = rows.key_by(*window.keys) if window.keys else rows
    kind: TimeWindow | Session = ms.tumbling(f"{window.size_s}s")
    if window.slide_s == 0:
        kind = ms.session(f"{window.size_s}s")
    elif window.slide_s is not None:
        kind = ms.hopping(f"{window.size_s}s", f"{window.slide_s}s")
    return keyed.window(kind, allowed_lateness=f"{window.allowed_s}s")


@dataclass
class Model:
    """What a job gives over any number of runs, each read to its end.

    Parameters
    ----------
    job
        What runs.
    outputs
        The rows of each topic that it writes.
    """

    job: Job
    outputs: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in OUTPUTS})
    _greatest_s: dict[tuple[str, int], int] = field(default_factory=dict)
    _flushed_s: dict[str, int] = field(default_factory=dict)

    def run(
        self,
        names: Mapping[str, str],
        one: Sequence[Sequence[Row]],
        two: Sequence[Sequence[Row]],
    ) -> None:
        """Take the rows that came since the last run, by partition; `names` holds all along."""
        job = self.job
        rows, others = self._stamped("one", one), self._stamped("two", two)
        if job.shape == "both":
            rows = [*rows, *others]
        if job.above is not None:
            rows = [each for each in rows if _is_above(each.row["value"], job.above)]
        if job.join_names is not None:
            rows = [
                Stamped(owned, each.stamp_s)
                for each in rows
                for owned in self._owned(each.row, names)
            ]
        if job.join is not None:
            named = [Stamped(self._named(each.row, names), each.stamp_s) for each in rows]
            rows = [each for each in named if each.row["name"] or job.join == "left"]
        self.outputs["copies"] += [each.row for each in rows]
        first, late = self._window("first", job.window, rows, "time", "value")
        self.outputs["first_late"] += [each.row for each in late]
        joined = job.join is not None and "key" in job.window.keys
        self.outputs["first"] += [self._named(each, names) for each in first] if joined else first
        match job.then:
            case "late rows":
                self._second(late, "time", "value")
            case "results":
                self._second([Stamped(each, None) for each in first], job.window.result_time, "n")
            case "united results":
                more, _ = self._window("other", job.window, others, "time", "value")
                both = [Stamped(each, None) for each in (*first, *more)]
                self._second(both, job.window.result_time, "n")

    def _second(self, rows: list[Stamped], time: str, summed: str) -> None:
        results, late = self._window("second", self.job.second, rows, time, summed)
        self.outputs["second"] += results
        self.outputs["second_late"] += [each.row for each in late]

    def _stamped(self, name: str, partitions: Sequence[Sequence[Row]]) -> list[Stamped]:
        stamped = []
        for index, rows in enumerate(partitions):
            greatest = self._greatest_s.get((name, index))
            for row in rows:
                stamp = None if greatest is None else greatest - self.job.lateness_s
                stamped.append(Stamped(row, stamp))
                greatest = row["time"] if greatest is None else max(greatest, row["time"])
            if greatest is not None:
                self._greatest_s[name, index] = greatest
        return stamped

    def _window(
        self, name: str, window: Window, rows: Iterable[Stamped], time: str, summed: str
    ) -> tuple[list[Row], list[Stamped]]:
        """Return results and late rows. What one run gave out is closed for all later ones."""
        groups: dict[tuple[Any, ...], list[Row]] = {}
        late = []
        flushed_s = self._flushed_s.get(name)
        if window.slide_s == 0:
            behind = [(each, _is_behind(each, time, window, flushed_s)) for each in rows]
            late = [each for each, is_late in behind if is_late]
            kept = [each.row for each, is_late in behind if not is_late]
            groups, rows = _sessions(kept, window, time), []
        for each in rows:
            open_ = [
                start_s
                for start_s in window.starts_s(each.row[time])
                if not _is_over(start_s + window.size_s, window, each.stamp_s, flushed_s)
            ]
            if not open_:
                late.append(each)
            key = tuple(each.row[column] for column in window.keys)
            for start_s in open_:
                groups.setdefault((*key, start_s), []).append(each.row)
        results = []
        for group, members in groups.items():
            start_s = group[-1]
            end_s = start_s + window.size_s
            if window.slide_s == 0:
                end_s = members[-1][time] + window.size_s
            values = [each[summed] for each in members if each[summed] is not None]
            result: Row = dict(zip(window.keys, group[:-1], strict=True))
            result |= {"window_start": start_s, "window_end": end_s}
            result["rows" if name == "second" else "n"] = len(members)
            results.append({**result, "total": sum(values) if values else None})
            self._flushed_s[name] = max(end_s, self._flushed_s.get(name, end_s))
        return results, late

    def _owned(self, row: Row, names: Mapping[str, str]) -> list[Row]:
        capitals = row["key"] and row["key"].upper()
        owners: list[str | None] = [key for key, name in names.items() if name == capitals]
        if not owners and self.job.join_names == "left":
            owners = [None]
        return [{**row, "capitals": capitals, "owner": each} for each in owners]

    @staticmethod
    def _named(row: Row, names: Mapping[str, str]) -> Row:
        return {**row, "name": names.get(row["key"])}


def _is_over(end_s: int, window: Window, stamp_s: int | None, flushed_s: int | None) -> bool:
    """Whether a window is over for a row with this stamp, or was given out by an earlier run."""
    too_late = stamp_s is not None and end_s + window.allowed_s <= stamp_s
    return too_late or (flushed_s is not None and end_s <= flushed_s)


def _is_behind(each: Stamped, time: str, window: Window, flushed_s: int | None) -> bool:
    """Whether a row is late for any session."""
    time_s = each.row[time]
    too_late = each.stamp_s is not None and time_s + window.allowed_s < each.stamp_s
    return too_late or (flushed_s is not None and time_s < flushed_s)


def _sessions(rows: Iterable[Row], window: Window, time: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by key and start of their session, in the order of time."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    latest: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row[time]):
        key = tuple(row[column] for column in window.keys)
        if key not in latest or row[time] >= latest[key][-1][time] + window.size_s:
            latest[key] = groups[(*key, row[time])] = []
        latest[key].append(row)
    return groups


def _is_above(value: int | None, least: int) -> bool:
    return value is not None and value > least
