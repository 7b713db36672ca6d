"""Columns of every type that a topic can hold cross to other workers and back as they were."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from tests.runtime.kit import TIME, Bench, put, rows_of, run

COUNT = 40
KEYS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "decimal": (pa.decimal128(12, 3), [Decimal(number) / 4 for number in range(COUNT)]),
    "wide decimal": (pa.decimal256(50, 3), [Decimal(number) for number in range(COUNT)]),
    "string": (pa.string(), [f"text {number % 7}" for number in range(COUNT)]),
    "large string": (pa.large_string(), [f"text {number % 7}" for number in range(COUNT)]),
    "binary": (pa.binary(), [bytes([number % 9]) for number in range(COUNT)]),
    "fixed binary": (pa.binary(4), [b"abc%d" % (number % 9) for number in range(COUNT)]),
    "bool": (pa.bool_(), [number % 2 == 0 for number in range(COUNT)]),
    "float": (pa.float64(), [number / 2 for number in range(COUNT)]),
    "float16": (pa.float16(), [float(number) for number in range(COUNT)]),
    "nan": (pa.float32(), [float("nan") if number % 4 else 0.0 for number in range(COUNT)]),
    "int8": (pa.int8(), [number % 5 - 2 for number in range(COUNT)]),
    "uint64": (pa.uint64(), [2**64 - 1 - number for number in range(COUNT)]),
    "date": (pa.date32(), [datetime.date(2020, 1, 1 + number % 28) for number in range(COUNT)]),
    "clock": (pa.time64("us"), [datetime.time(number % 24) for number in range(COUNT)]),
    "duration": (pa.duration("ms"), [datetime.timedelta(number) for number in range(COUNT)]),
    "timestamp": (
        pa.timestamp("ns", "Europe/Berlin"),
        [
            datetime.datetime(2020, 1, 1 + number % 28, tzinfo=datetime.UTC)
            for number in range(COUNT)
        ],
    ),
    "null": (pa.null(), [None] * COUNT),
}
NESTED: dict[str, tuple[pa.DataType, list[Any]]] = {
    "list": (pa.list_(pa.int64()), [[number] * (number % 4) for number in range(COUNT)]),
    "struct": (
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))]),
        [{"a": number, "b": [str(number), None]} for number in range(COUNT)],
    ),
    "map": (pa.map_(pa.string(), pa.int64()), [[("k", number)] for number in range(COUNT)]),
    "pair": (pa.list_(pa.float32(), 2), [[number, 0.5] for number in range(COUNT)]),
}


def with_nulls(values: list[Any]) -> list[Any]:
    return [None if number % 5 == 3 else value for number, value in enumerate(values)]


def table_of(key: str) -> pa.Table:
    """Rows with that key column, every nested column, and hours of disorder."""
    columns = {"key": KEYS[key], **NESTED}
    fields = [pa.field("time", TIME), *(pa.field(n, type_) for n, (type_, _) in columns.items())]
    seconds = [number if number % 6 else 0 for number in range(COUNT)]
    times = pa.array([each * 1_000_000 for each in seconds], pa.int64()).cast(TIME)
    arrays = [pa.array(with_nulls(values), type_) for type_, values in columns.values()]
    return pa.table([times, *arrays], schema=pa.schema(fields))


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("key", list(KEYS))
def test_rows_come_out_as_they_went_in(key: str, parallelism: int) -> None:
    bench = Bench()
    log = bench.log()
    rows = table_of(key)
    log.create_topic("rows", rows.schema, partitions=2, time="time")
    for begin in range(0, COUNT, 7):
        put(log, "rows", rows.slice(begin, 7))
    # With an idle time-out rows are not combined before they cross: late ones cross whole.
    stream = ms.stream("rows", lateness="0s", idle_timeout="1h", log=log)
    windows = stream.key_by("key").window(ms.tumbling("10s")).agg(n=ms.count())
    ends = [stream.to("copy"), windows.to("windows"), windows.late().to("late")]
    run(bench, ends, parallelism=parallelism, batch_rows=5)
    everything = rows_of(log, "rows")
    assert repr(rows_of(log, "copy")) == repr(everything)
    late = rows_of(log, "late")
    assert 0 < len(late) < COUNT
    assert set(map(repr, late)) <= set(map(repr, everything))
    counted = rows_of(log, "windows", "n", "key", "window_start")
    assert sum(row[0] for row in counted) + len(late) == COUNT
    assert len({repr(row[1:]) for row in counted}) == len(counted)
