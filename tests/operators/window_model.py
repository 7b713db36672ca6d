"""A windowed aggregate row by row in plain Python, and random rows for it."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from millstream.operators.aggregate import Aggregate, AggregateFunction, UserAggregate
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.windows.assignment import RowWindow, TimeWindow
from millstream.windows.hopping import Hopping
from millstream.windows.session import Session
from millstream.windows.tumbling import Tumbling
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN
from tests.operators.kit import TIME

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "number": pa.int32(),
        "time": TIME,
        "i8": pa.int8(),
        "i64": pa.int64(),
        "u64": pa.uint64(),
        "f32": pa.float32(),
        "f64": pa.float64(),
        "flag": pa.bool_(),
        "at": pa.timestamp("s"),
        "day": pa.date32(),
        "wait": pa.duration("ms"),
        "cents": pa.decimal128(10, 2),
        "blob": pa.binary(),
        "tags": pa.list_(pa.int8()),
    }
)
VALUES: dict[str, Sequence[Any]] = {
    "text": ["JFK", "LGA", "", "a longer text", "another long text"],
    "number": [0, 1, -1],
    "i8": [-128, -1, 0, 1, 127],
    "i64": [-(2**57), -3, 0, 5, 2**57],
    "u64": [0, 7, 2**57, 2**58],
    "f32": [-1.5, 0.0, 0.125, 2.0**100],
    "f64": [-1.5, 0.1, 0.25, 1e16, -1e16, 1e300, math.inf, -math.inf, math.nan],
    "flag": [True, False],
    "at": [datetime(1960, 1, 1), datetime(2024, 1, 1)],  # noqa: DTZ001  # the type has no zone
    "day": [date(1969, 12, 31), date(2024, 2, 29)],
    "wait": [timedelta(0), timedelta(days=-1), timedelta(milliseconds=7)],
    "cents": [Decimal("-99999999.99"), Decimal("0.00"), Decimal("12.34"), Decimal("99999999.99")],
    "blob": [b"", b"\xff\x00", b"blob"],
    "tags": [[], [1], [2, None]],
}
ORDERED = ("i8", "i64", "u64", "f32", "f64", "flag", "at", "day", "wait")
SUMMED = ("i8", "i64", "u64", "f32", "f64")


def _of(function: AggregateFunction, *arguments: str, **options: Any) -> Iterator[Aggregate]:
    for argument in arguments:
        yield Aggregate(f"{function}_{argument}", function, argument, **options)


SQUARES = UserAggregate(
    init=int,
    update=lambda state, value: state + value * value,
    merge=int.__add__,
    finish=lambda state: state + 0.5,
    state_type=pa.int64(),
    type=pa.float64(),
)
STORED = (
    *_of("count_distinct", "text", "i64", "f64", "flag", "cents", "day", "blob"),
    *_of("approx_count_distinct", "text", "f32"),
    *_of("collect_set", "text", "f64", "u64", "cents"),
    *_of("top_k", "i8", "text", "f32", parameter=2),
    *_of("first", "text", "f32", "tags", "flag"),
    *_of("last", "cents", "at", "tags"),
    *_of("arg_min", "text", by="i8"),
    *_of("arg_max", "tags", by="f64"),
    *_of("arg_max", "i64", by="text"),
    *_of("min", "text", "cents", "blob"),
    *_of("max", "text", "cents", "blob"),
    *_of("sum", "cents"),
    *_of("mean", "cents"),
    *_of("var", "i8", "f32"),
    *_of("std", "u64"),
    *_of("quantile", "i8", parameter=0.5),
    *_of("quantile", "f64", parameter=0.9, accuracy=0.05),
    *_of("collect_list", "i8", "text", "tags"),
    *_of("user", "i8", user=SQUARES),
)
"""More aggregates: those with state beside the fields of a slot, of decimals, and variances."""

AGGREGATES = (
    Aggregate("rows", "count", None),
    *(Aggregate(f"count_{name}", "count", name) for name in ("text", "i64", "flag")),
    *(Aggregate(f"{which}_{name}", which, name) for which in ("sum", "mean") for name in SUMMED),
    *(Aggregate(f"{which}_{name}", which, name) for which in ("min", "max") for name in ORDERED),
)


def config_of(
    keys: tuple[str, ...],
    size: int,
    offset: int = 0,
    allowed: int = 0,
    slide: int | None = None,
    aggregates: tuple[Aggregate, ...] = AGGREGATES,
) -> WindowAggregateConfig:
    """Without a slide windows tumble; with one of 0 they are sessions, the size being the gap."""
    window: TimeWindow | Session = Tumbling(size, offset)
    if slide is not None:
        window = Hopping(size, slide, offset) if slide else Session(size)
    return WindowAggregateConfig(SCHEMA, keys, "time", window, aggregates, allowed)


def starts_of(window: TimeWindow | Session, time_us: int) -> list[int]:
    """The starts of all windows that hold a time."""
    if isinstance(window, Tumbling):
        return [time_us - (time_us - window.offset_us) % window.size_us]
    assert isinstance(window, Hopping)
    last = time_us - (time_us - window.offset_us) % window.slide_us
    starts = range(last, last - window.size_us, -window.slide_us)
    return [start for start in starts if time_us < start + window.size_us]


def rows_of(seed: int, count: int, times: range, stamped: bool = True) -> list[Row]:
    """Random rows; a stamp is some watermark around the row's time."""
    chooser = random.Random(seed)
    rows = []
    for _ in range(count):
        row = {
            name: None if chooser.random() < 0.2 else chooser.choice(values)
            for name, values in VALUES.items()
        }
        time_us = chooser.choice(times)
        row["time"] = time_us
        row["_stamp"] = time_us + chooser.randint(-20, 20) if stamped else None
        row["_position"] = chooser.getrandbits(62)
        rows.append(row)
    return rows


def batch_of(rows: Sequence[Row]) -> pa.RecordBatch:
    """The rows as a batch that begins inside its buffers."""
    filler = dict.fromkeys([*SCHEMA.names, "_stamp"]) | {"time": 0, "_stamp": 0, "_position": 0}
    stamped = all(row["_stamp"] is not None for row in rows)
    hidden = ["_stamp", "_position"] if stamped else ["_position"]
    schema = pa.schema([*SCHEMA, *((name, pa.int64()) for name in hidden)])
    return pa.RecordBatch.from_pylist([filler, *rows], schema).slice(1)


class WindowModel:
    """The open windows as lists of rows."""

    def __init__(self, config: WindowAggregateConfig) -> None:
        self.config = config
        self.windows: dict[tuple[Any, ...], list[Row]] = {}
        self.watermark_us = WATERMARK_MIN
        self.closed_us = WATERMARK_MIN
        self.given_us = WATERMARK_MIN
        self.missed = 0

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """Take rows in; return the late ones."""
        late = []
        for row in rows:
            window, allowed_us = self.config.window, self.config.allowed_lateness_us
            if isinstance(window, Session):
                late += self._session_row(row)
                continue
            assert not isinstance(window, RowWindow)
            stamp_us = WATERMARK_MIN if row["_stamp"] is None else row["_stamp"]
            open_ = [
                start
                for start in starts_of(window, row["time"])
                if start + window.size_us > self.closed_us
                and start + window.size_us + allowed_us > max(stamp_us, self.watermark_us)
            ]
            self.missed += len(open_) < len(starts_of(window, row["time"]))
            if not open_:
                late.append(row)
            for start in open_:
                key = (start, *(row[name] for name in self.config.key_columns))
                self.windows.setdefault(key, []).append(row)
        return late

    def _session_row(self, row: Row) -> list[Row]:
        stamp_us = WATERMARK_MIN if row["_stamp"] is None else row["_stamp"]
        over_us = max(stamp_us, self.watermark_us) - self.config.allowed_lateness_us
        if row["time"] < max(over_us, self.closed_us):
            return [row]
        key = (0, *(row[name] for name in self.config.key_columns))
        self.windows.setdefault(key, []).append(row)
        return []

    def _close_sessions(self, until_us: int) -> list[Row]:
        results = []
        gap_us = self.config.window.size_us
        for key in list(self.windows):
            rows = sorted(self.windows.pop(key), key=lambda row: row["time"])
            sessions: list[list[Row]] = []
            for row in rows:
                if sessions and row["time"] < sessions[-1][-1]["time"] + gap_us:
                    sessions[-1].append(row)
                else:
                    sessions.append([row])
            for session in sessions:
                end_us = session[-1]["time"] + gap_us
                if end_us > until_us:
                    self.windows.setdefault(key, []).extend(session)
                    continue
                self.given_us = max(self.given_us, end_us)
                bounds = {"window_start": session[0]["time"], "window_end": end_us}
                results.append(
                    dict(zip(self.config.key_columns, key[1:], strict=True))
                    | bounds
                    | {each.name: computed(each, session) for each in self.config.aggregates}
                )
        return results

    def watermark(self, watermark_us: int) -> list[Row]:
        """Return the results of the windows that are over."""
        self.watermark_us = max(self.watermark_us, watermark_us)
        if isinstance(self.config.window, Session):
            return self._close_sessions(watermark_us - self.config.allowed_lateness_us)
        span = self.config.window.size_us + self.config.allowed_lateness_us
        return self._close(lambda start: start + span <= watermark_us)

    def end(self) -> list[Row]:
        """Return the results of all windows."""
        results = (
            self._close_sessions(WATERMARK_MAX)
            if isinstance(self.config.window, Session)
            else self._close(lambda start: True)
        )
        self.closed_us = max(self.closed_us, self.given_us)
        return results

    def _close(self, is_over: Callable[[int], bool]) -> list[Row]:
        results = []
        for key in [key for key in self.windows if is_over(key[0])]:
            start, *values = key
            end = start + self.config.window.size_us
            self.given_us = max(self.given_us, end)
            rows = self.windows.pop(key)
            results.append(
                dict(zip(self.config.key_columns, values, strict=True))
                | {"window_start": start, "window_end": end}
                | {each.name: computed(each, rows) for each in self.config.aggregates}
            )
        return results


def computed(aggregate: Aggregate, rows: Sequence[Row]) -> Any:
    """An aggregate over the rows of a window."""
    if aggregate.argument is None:
        return len(rows)
    by = aggregate.by or aggregate.argument
    rows = sorted(rows, key=lambda row: (row["time"], row["_position"]))
    rows = [row for row in rows if row[aggregate.argument] is not None and row[by] is not None]
    values = [row[aggregate.argument] for row in rows]
    match aggregate.function:
        case "count":
            return len(values)
        case "count_distinct" | "approx_count_distinct":
            return len({str(value) for value in values})
        case _ if not values:
            return None
        case "sum":
            return total(values)
        case "mean":
            return float(total(values)) / len(values)
        case "min" | "arg_min":
            return min(rows, key=lambda row: rank(row[by]))[aggregate.argument]
        case "max" | "arg_max":
            return max(rows, key=lambda row: rank(row[by]))[aggregate.argument]
        case "var":
            return statistics.variance(values) if len(values) > 1 else None
        case "std":
            return statistics.stdev(values) if len(values) > 1 else None
        case "quantile":
            assert aggregate.parameter is not None
            return sorted(values, key=rank)[int(aggregate.parameter * (len(values) - 1))]
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "collect_list":
            return values
        case "collect_set":
            return sorted({str(value): value for value in values}.values(), key=rank)
        case "top_k":
            return sorted(values, key=rank, reverse=True)[: int(aggregate.parameter or 0)]
        case _:
            return sum(value * value for value in values) + 0.5


def rank(value: Any) -> Any:
    """By which values are ordered: NaN is the greatest."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return (is_nan, 0.0 if is_nan else value)


def total(values: Sequence[Any]) -> Any:
    """A sum, of floats the exact one."""
    if not isinstance(values[0], float):
        return sum(values)
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < len(values):
        return sum(value for value in values if not math.isfinite(value))
    return math.fsum(finite)


def check_results(found: Sequence[Row], expected: Sequence[Row], sources: Sequence[Row]) -> None:
    """Compare results in any order; sums and means of floats to 1e-12 of the largest value."""

    def order(row: Row) -> str:
        return repr([row.get(name) for name in ("window_start", "text", "number", "f64", "flag")])

    assert len(found) == len(expected)
    for got, wanted in zip(sorted(found, key=order), sorted(expected, key=order), strict=True):
        assert list(got) == list(wanted)
        for name, value in wanted.items():
            assert alike(name, got[name], value, sources), (name, got[name], value)


def alike(name: str, got: Any, wanted: Any, sources: Sequence[Row]) -> bool:
    which, _, column = name.partition("_")
    if isinstance(wanted, list):
        pairs = zip(got or [], wanted, strict=False)
        same = all(one == other or (one != one and other != other) for one, other in pairs)  # noqa: PLR0124  # NaN
        return got is not None and len(got) == len(wanted) and same
    if got is not None and which in {"var", "std", "quantile"} and not math.isnan(wanted):
        accuracy = {"quantile_i8": 0.01, "quantile_f64": 0.05}.get(name, 1e-9)
        return math.isclose(got, wanted, rel_tol=1.0001 * accuracy)
    if not isinstance(wanted, float) or got is None:
        return type(got) is type(wanted) and bool(got == wanted)
    if math.isnan(wanted):
        return math.isnan(got)
    if which in {"sum", "mean"} and column.startswith("f"):
        sizes = [abs(row[column]) for row in sources if row[column] is not None]
        scale = math.fsum(each for each in sizes if math.isfinite(each))
        return math.isclose(got, wanted, rel_tol=1e-12, abs_tol=1e-12 * scale)
    return bool(got == wanted) or (which == "mean" and math.isclose(got, wanted, rel_tol=1e-12))


def plain(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a result, times of windows as integers."""
    names = batch.schema.names
    columns = [
        column.cast(pa.int64()) if column.type == TIME else column for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=names).to_pylist()
