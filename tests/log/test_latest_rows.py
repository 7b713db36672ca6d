"""The latest row of each key, whatever its type, however little memory there is."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log import latest_rows as module
from millstream.log.latest_rows import RowSet, latest_rows

TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int": (pa.int64(), [0, 1, -1, 2**62, None]),
    "small": (pa.uint8(), [0, 255, None]),
    "flag": (pa.bool_(), [True, False, None]),
    "real": (pa.float32(), [0.0, -0.0, math.nan, 1.5, -math.inf, None]),
    "half": (pa.float16(), [np.float16(0), np.float16(-0.0), np.float16(2), None]),
    "text": (pa.string(), ["", "a", "ä", "a\0", None]),
    "bytes": (pa.large_binary(), [b"", b"\0", None]),
    "fixed": (pa.binary(2), [b"ab", b"ba", None]),
    "money": (pa.decimal128(9, 2), [decimal.Decimal("1.50"), decimal.Decimal("-3.00"), None]),
    "date": (pa.date32(), [0, 1, None]),
    "time": (pa.timestamp("ms", "UTC"), [0, 1, None]),
    "span": (pa.duration("s"), [0, 1, None]),
    "word": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None]),
}


def model_key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple("nan" if isinstance(each, float) and math.isnan(each) else each for each in row)


@settings(max_examples=40)
@given(st.data())
def test_they_are_those_of_a_dict(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=2, unique=True))
    row = st.tuples(*(st.sampled_from(TYPES[name][1]) for name in names))
    frames = data.draw(st.lists(st.lists(row, min_size=1, max_size=30), max_size=6))
    batches = [
        pa.record_batch(
            [
                pa.array(list(values), TYPES[name][0])
                for name, values in zip(names, zip(*rows, strict=True), strict=True)
            ],
            names=names,
        )
        for rows in frames
    ]
    rows = [model_key(each) for frame in frames for each in frame]
    latest = {key: index for index, key in enumerate(rows)}
    memory = data.draw(st.sampled_from([1, 60, 10**9]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", 8)
        patch.setattr(module, "PARTS_MAX", 4)
        found = latest_rows(lambda: batches, names, len(rows), memory)
        assert np.flatnonzero(found.slice(0, len(rows))).tolist() == sorted(latest.values())


@given(st.integers(1, 100), st.data())
def test_a_set_of_rows(size: int, data: st.DataObject) -> None:
    rows = RowSet(size)
    members = data.draw(st.lists(st.integers(0, size - 1)))
    half = len(members) // 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", 16)
        for part in (members[:half], members[half:]):
            rows.add(np.array(part, dtype=np.int64))
    start = data.draw(st.integers(0, size))
    count = data.draw(st.integers(0, size - start))
    expected = [each in members for each in range(start, start + count)]
    assert rows.slice(start, count).tolist() == expected


def test_little_memory_takes_more_passes_and_finds_the_same() -> None:
    keys = np.random.default_rng(0).integers(0, 3_000, 20_000)
    batches = pa.table({"key": keys}).to_batches(1_000)
    passes = 0

    def again() -> list[pa.RecordBatch]:
        nonlocal passes
        passes += 1
        return batches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", 1_024)
        found = latest_rows(again, ["key"], len(keys), memory_bytes=20_000)
    latest = {int(key): index for index, key in enumerate(keys)}
    assert np.flatnonzero(found.slice(0, len(keys))).tolist() == sorted(latest.values())
    assert passes > 3
