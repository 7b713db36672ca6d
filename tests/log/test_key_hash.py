"""Key hashes: equal keys are equal in every type and layout, and FORMAT.md says which they are."""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import ExpressionTypeError
from millstream.log.key_hash import (
    KEY_GROUPS,
    NULL_HASH,
    is_key_type,
    key_groups,
    key_hashes,
)

FORMAT = Path(__file__).resolve().parent.parent.parent / "millstream" / "log" / "FORMAT.md"

VECTORS: dict[str, list[pa.Array]] = {
    "null": [pa.nulls(1), pa.nulls(1, pa.int32()), pa.nulls(1, pa.string())],
    "int 5": [
        pa.array([5], each)
        for each in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64())
    ],
    "int −1, uint64 2^64 − 1": [
        pa.array([-1], pa.int8()),
        pa.array([-1], pa.int64()),
        pa.array([2**64 - 1], pa.uint64()),
    ],
    "true": [pa.array([True])],
    "float 1.5": [pa.array([1.5], each) for each in (pa.float16(), pa.float32(), pa.float64())],
    "float 0.0, −0.0": [pa.array([0.0]), pa.array([-0.0]), pa.array([-0.0], pa.float32())],
    "float NaN": [
        pa.array(np.array([bits], "u8").view("f8"))
        for bits in (0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001)
    ],
    "string `` (empty)": [pa.array([""]), pa.array([b""]), pa.array([""], pa.large_string())],
    "string `EWR`": [
        pa.array(["EWR"]),
        pa.array([b"EWR"]),
        pa.array([b"EWR"], pa.binary(3)),
        pa.array(["EWR"], pa.string_view()),
        pa.array(["EWR"]).dictionary_encode(),
    ],
    "string `Zürich`": [pa.array(["Zürich"])],
    "string of 40 `a`": [pa.array(["a" * 40])],
    "date 2013-01-01": [
        pa.array([dt.date(2013, 1, 1)], pa.date32()),
        pa.array([dt.date(2013, 1, 1)], pa.date64()),
    ],
    "timestamp 2013-01-01T00:00:00": [
        pa.array([dt.datetime(2013, 1, 1)], pa.timestamp(unit, zone))  # noqa: DTZ001 # in no zone
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC")
    ],
    "time 01:02:03": [
        pa.array([dt.time(1, 2, 3)], each)
        for each in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
    ],
    "duration 1 s": [pa.array([dt.timedelta(seconds=1)], pa.duration(u)) for u in ("s", "us")],
    "decimal 1.50": [
        pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        pa.array([Decimal("1.5")], pa.decimal128(3, 1)),
        pa.array([Decimal("1.5")], pa.decimal256(70, 9)),
    ],
    "decimal −1200": [pa.array([Decimal(-1200)], pa.decimal128(6, 0))],
}
COMPOSITES: dict[str, list[pa.Array]] = {
    "(string `EWR`, int 5)": [pa.array(["EWR"]), pa.array([5])],
    "(int 5, string `EWR`)": [pa.array([5]), pa.array(["EWR"])],
    "(null, null)": [pa.nulls(1), pa.nulls(1)],
    "(int 1, int 2, int 3)": [pa.array([1]), pa.array([2]), pa.array([3])],
}


def table_of_format() -> dict[str, tuple[bytes, int, int]]:
    """FORMAT.md's test vectors: hashed bytes, hash and group by key."""
    row = re.compile(r"^\| (.+?) \| (none|`[0-9a-f ]+`) \| `([0-9a-f]{16})` \| (\d+) \|$", re.M)
    text = FORMAT.read_text("utf-8")
    section = text[text.index("## Key hash") : text.index("## Transactions")]
    return {
        key: (
            b"" if content == "none" else bytes.fromhex(content.strip("`")),
            int(hashed, 16),
            int(group),
        )
        for key, content, hashed, group in row.findall(section)
    }


@pytest.mark.parametrize("key", VECTORS)
def test_vectors(key: str) -> None:
    content, expected, group = table_of_format()[key]
    assert xxhash.xxh64_intdigest(content) == expected
    for column in VECTORS[key]:
        assert key_hashes([column]).tolist() == [expected], column.type
        assert key_groups([column]).tolist() == [group]


@pytest.mark.parametrize("key", COMPOSITES)
def test_composite_vectors(key: str) -> None:
    content, expected, group = table_of_format()[key]
    assert xxhash.xxh64_intdigest(content) == expected
    assert key_hashes(COMPOSITES[key]).tolist() == [expected]
    assert key_groups(COMPOSITES[key]).tolist() == [group]


def test_there_is_a_test_for_each_vector() -> None:
    assert set(table_of_format()) == set(VECTORS) | set(COMPOSITES)
    assert len({each[1] for each in table_of_format().values()}) == len(table_of_format()) - 1
    # (The empty string is hashed as a null is: both are no bytes.)


def canonical(value: Any) -> bytes:
    """The bytes of a key as FORMAT.md has them."""
    match value:
        case None:
            return b""
        case bool() | int():
            return struct.pack("<Q", value % 2**64)
        case float():
            if math.isnan(value):
                return struct.pack("<Q", 0x7FF8000000000000)
            return struct.pack("<d", value + 0.0)
        case str():
            return value.encode()
        case bytes():
            return value
        case Decimal():
            sign, digits, exponent = value.normalize().as_tuple()
            text = "".join(map(str, digits))
            if text == "0":
                return b"0E0"
            return f"{'-' * sign}{text}E{exponent}".encode()
    raise AssertionError(value)


def oracle(rows: Sequence[Sequence[Any]]) -> list[int]:
    found = []
    for row in rows:
        hashed = xxhash.xxh64_intdigest(canonical(row[0]))
        for value in row[1:]:
            other = xxhash.xxh64_intdigest(canonical(value))
            hashed = xxhash.xxh64_intdigest(struct.pack("<QQ", hashed, other))
        found.append(hashed)
    return found


COLUMNS = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "int16": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "bool": (pa.bool_(), st.booleans()),
    "double": (pa.float64(), st.floats()),
    "float": (pa.float32(), st.floats(width=32)),
    "string": (pa.string(), st.text(max_size=80)),
    "large string": (pa.large_string(), st.text(max_size=5)),
    "binary": (pa.binary(), st.binary(max_size=100)),
    "fixed": (pa.binary(4), st.binary(min_size=4, max_size=4)),
    "decimal": (
        pa.decimal128(30, 6),
        st.decimals(-(10**20), 10**20, places=6, allow_nan=False).map(
            lambda value: value.quantize(Decimal("0.000001"))
        ),
    ),
}


@st.composite
def keys(draw: st.DrawFn) -> tuple[list[pa.DataType], list[list[Any]]]:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3))
    values = st.tuples(*(st.none() | COLUMNS[name][1] for name in names)).map(list)
    return [COLUMNS[name][0] for name in names], draw(st.lists(values, max_size=12))


@settings(max_examples=300)
@given(keys(), st.integers(0, 3), st.booleans())
def test_against_the_reference_in_any_layout(
    key: tuple[list[pa.DataType], list[list[Any]]], before: int, encoded: bool
) -> None:
    types, rows = key
    columns = []
    for index, type_ in enumerate(types):
        # A slice: what lies before and behind is not looked at.
        values = [None] * before + [row[index] for row in rows] + [None]
        column = pa.array(values, type_)
        if encoded and not pa.types.is_decimal(type_):
            column = column.dictionary_encode()
        columns.append(column.slice(before, len(rows)))
    assert key_hashes(columns).tolist() == oracle(rows)
    assert key_groups(columns).tolist() == [each % KEY_GROUPS for each in oracle(rows)]


def test_a_null_is_the_hash_of_nothing() -> None:
    assert xxhash.xxh64_intdigest(b"") == NULL_HASH
    garbage = pa.Array.from_buffers(pa.int64(), 1, [pa.py_buffer(b"\0"), pa.py_buffer(b"12345678")])
    assert key_hashes([garbage]).tolist() == [NULL_HASH]


def test_times_are_cut_to_microseconds() -> None:
    for type_ in (pa.timestamp("ns"), pa.duration("ns")):
        fine = pa.array([1_999, -1_999, 0], pa.int64()).view(type_)
        assert key_hashes([fine]).tolist() == oracle([[1], [-1], [0]])
    odd = pa.array([86_400_005, -5], pa.int64()).view(pa.date64())
    assert key_hashes([odd]).tolist() == oracle([[1], [0]])


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.month_day_nano_interval()]
)
def test_what_cannot_be_a_key(type_: pa.DataType) -> None:
    assert not is_key_type(type_)
    with pytest.raises(ExpressionTypeError, match="cannot be a key"):
        key_hashes([pa.nulls(1, type_)])


def test_groups_are_spread_evenly() -> None:
    groups = key_groups([pa.array(np.arange(200_000))])
    counts = np.bincount(groups, minlength=KEY_GROUPS)
    assert len(counts) == KEY_GROUPS
    assert counts.min() > 15
    assert counts.max() < 95
