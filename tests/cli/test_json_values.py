"""Every Arrow type that a topic can hold goes through JSON lines and comes back the same."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.cli.json_values import is_plain, json_lines, read_lines
from millstream.cli.rows import JsonLines

MOMENT = datetime(2024, 2, 29, 12, 30, 1, 250_000, tzinfo=UTC)
NAIVE = MOMENT.replace(tzinfo=None)
INNER = pa.struct([("a", pa.binary()), ("b", pa.timestamp("ns", "UTC"))])

VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.null(), [None, None]),
    (pa.bool_(), [True, False]),
    *((each, [0, 100]) for each in (pa.int8(), pa.uint8(), pa.int32(), pa.uint32())),
    (pa.int64(), [-(2**63), 2**63 - 1]),
    (pa.uint64(), [0, 2**64 - 1]),
    *((each, [1.5, -0.0, math.inf, -math.inf]) for each in (pa.float16(), pa.float32())),
    (pa.float64(), [0.1, 1e300, math.inf]),
    (pa.decimal128(38, 10), [Decimal("1234567890123456789012345678.0123456789")]),
    (pa.decimal256(60, 2), [Decimal("-0.01")]),
    (pa.string(), ["", "ä\n\"'", "NaN"]),
    (pa.large_string(), ["x"]),
    *((each, [b"", b"\x00\xff"]) for each in (pa.binary(), pa.large_binary())),
    (pa.binary(2), [b"\x00\xff"]),
    *((each, [date(1969, 12, 31)]) for each in (pa.date32(), pa.date64())),
    (pa.time32("s"), [time(23, 59, 59)]),
    (pa.time64("us"), [time(1, 2, 3, 4)]),
    (pa.time64("ns"), [1]),
    (pa.timestamp("s"), [NAIVE.replace(microsecond=0)]),
    (pa.timestamp("us"), [NAIVE]),
    (pa.timestamp("us", "UTC"), [MOMENT]),
    (pa.timestamp("ms", "Europe/Berlin"), [MOMENT]),
    (pa.timestamp("ns"), [-1]),
    (pa.timestamp("ns", "Asia/Tokyo"), [1_700_000_000_123_456_789]),
    (pa.duration("ns"), [-1, 10**18]),
    (pa.month_day_nano_interval(), [pa.MonthDayNano([1, 2, 3])]),
    (pa.list_(pa.binary()), [[b"a", None], []]),
    (pa.large_list(pa.timestamp("ns")), [[1, None]]),
    (pa.list_(pa.float64(), 2), [[math.inf, 1.0]]),
    (INNER, [{"a": b"x", "b": 1}, {"a": None, "b": None}]),
    (pa.list_(INNER), [[{"a": b"x", "b": 1}, None]]),
    (pa.map_(pa.string(), pa.decimal128(5, 2)), [[("k", Decimal("1.50")), ("l", None)], []]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "a"]),
]


@pytest.mark.parametrize(("data_type", "values"), VALUES, ids=lambda each: str(each)[:40])
def test_every_type_comes_back(data_type: pa.DataType, values: list[Any]) -> None:
    plain = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    array = pa.array([None, *values], plain)
    if plain is not data_type:
        array = array.dictionary_encode()
    schema = pa.schema([("x", data_type), ("n", pa.int64())])
    batch = pa.record_batch([array, pa.array(range(len(array)))], schema=schema)
    for some in (batch, batch.slice(1)):
        text = json_lines(some)
        lines = text.splitlines(keepends=True)
        assert [json.loads(line)["n"] for line in lines] == some.column("n").to_pylist()
        expected = pa.table(pa.concat_batches([some]))
        assert read_lines(lines, schema).equals(expected), text
        assert JsonLines(schema).read(lines).equals(expected), text


@given(st.lists(st.floats(width=32) | st.none()))
def test_floats_come_back(values: list[float | None]) -> None:
    schema = pa.schema([("x", pa.float32())])
    batch = pa.record_batch([pa.array(values, pa.float32())], schema=schema)
    found = JsonLines(schema).read(json_lines(batch).splitlines(keepends=True))
    assert str(found.to_pylist()) == str(batch.to_pylist())


def test_what_arrow_reads_by_itself_is_left_to_it() -> None:
    assert is_plain(pa.struct([("a", pa.list_(pa.timestamp("us", "UTC")))]))
    assert not is_plain(pa.list_(pa.binary()))


@pytest.mark.parametrize(
    ("data_type", "text", "words"),
    [
        (pa.binary(), '{"x": "%"}', "column 'x' is binary"),
        (pa.decimal128(3, 1), '{"x": "1.25"}', "column 'x' is decimal128(3, 1)"),
        (pa.decimal128(3, 1), '{"x": "a"}', "column 'x' is decimal128(3, 1)"),
        (pa.date32(), '{"x": "2024-02-30"}', "column 'x' is date32"),
        (pa.map_(pa.string(), pa.int64()), '{"x": 5}', "column 'x' is map"),
        (pa.binary(), '{"x": ', "truncated"),
        (pa.binary(), "[1]", "not a JSON object"),
    ],
)
def test_a_value_of_another_form(data_type: pa.DataType, text: str, words: str) -> None:
    form = JsonLines(pa.schema([("x", data_type)]))
    with pytest.raises(pa.ArrowInvalid):
        form.read([text.encode() + b"\n"])
    assert words in form.explain(text.encode()) or "not JSON" in form.explain(text.encode())
