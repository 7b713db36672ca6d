"""Slots of keys, against a dictionary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators import key_index
from millstream.operators.key_index import KeyIndex
from tests.examples import examples

START = datetime(2024, 1, 1, tzinfo=UTC)
TEXTS = [
    "",
    "a",
    "b",
    "JFK",
    "7 bytes",
    "8 bytes!",
    "ünï",
    "\0",
    "\0\0",
    "a\0",
    "x" * 300,
    "y" * 300,
]

VALUES: dict[pa.DataType, list[Any]] = {
    pa.int8(): [-128, -1, 0, 1, 127],
    pa.int16(): [-(2**15), -1, 0, 7],
    pa.int32(): [-(2**31), -1, 0, 7, 2**31 - 1],
    pa.int64(): [-(2**63), -1, 0, 7, 2**63 - 1],
    pa.uint8(): [0, 1, 255],
    pa.uint32(): [0, 2**32 - 1],
    pa.uint64(): [0, 1, 2**63 - 1, 2**63, 2**64 - 1],
    pa.float16(): [np.float16(0.0), np.float16(-0.0), np.float16(1.5), np.float16("nan")],
    pa.float32(): [0.0, -0.0, 0.5, math.nan, math.inf, -math.inf],
    pa.float64(): [0.0, -0.0, 0.1, math.nan, math.inf, -math.inf, 1e300],
    pa.bool_(): [True, False],
    pa.date32(): [date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29)],
    pa.date64(): [date(1969, 12, 31), date(2024, 2, 29)],
    pa.time32("s"): [time(0), time(23, 59, 59)],
    pa.time64("us"): [time(0), time(23, 59, 59, 999_999)],
    pa.timestamp("us", "UTC"): [START, START - timedelta(days=365 * 60)],
    pa.timestamp("s"): [datetime(1960, 1, 1), datetime(2024, 1, 1)],  # noqa: DTZ001  # none there
    pa.duration("ms"): [timedelta(0), timedelta(days=-1)],
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.string_view(): TEXTS,
    pa.binary(): [text.encode() for text in TEXTS] + [b"\xff", b"\xff" * 8],
    pa.large_binary(): [b"", b"a", b"\0" * 9],
    pa.binary(3): [b"abc", b"\0\0\0", b"\xff\xff\xff"],
    pa.dictionary(pa.int8(), pa.string()): ["a", "b", "", "a longer text"],
    pa.dictionary(pa.int32(), pa.int64()): [1, 2, -3],
    pa.decimal128(10, 2): [Decimal("1.10"), Decimal("-0.01"), Decimal("0.00")],
    pa.null(): [],
}


def plain(value: Any) -> Any:
    """A value as a dictionary's key: one NaN, one zero."""
    if isinstance(value, float | np.floating):
        return "nan" if math.isnan(value) else float(value) + 0.0
    return value


class Model:
    """The same by dictionaries: slots are whatever the index said first."""

    def __init__(self) -> None:
        self.slot_of: dict[tuple[Any, ...], int] = {}
        self.changed: set[tuple[Any, ...]] = set()
        self.known: set[tuple[Any, ...]] = set()
        self.removed: list[tuple[Any, ...]] = []

    def insert(self, keys: Sequence[tuple[Any, ...]], slots: Sequence[int]) -> list[int]:
        added = []
        for key, slot in zip(keys, slots, strict=True):
            if key not in self.slot_of:
                assert slot not in self.slot_of.values()
                self.slot_of[key] = slot
                added.append(slot)
            assert self.slot_of[key] == slot
            self.changed.add(key)
        return added

    def remove(self, keys: Sequence[tuple[Any, ...]]) -> None:
        for key in keys:
            del self.slot_of[key]
            self.changed.discard(key)
            if key in self.known:
                self.known.discard(key)
                self.removed.append(key)

    def mark(self) -> None:
        self.known, self.changed, self.removed = set(self.slot_of), set(), []


def arrays(rows: Sequence[tuple[Any, ...]], types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Key columns that begin inside their buffers."""
    made = []
    for index, type_ in enumerate(types):
        values = [None, *(row[index] for row in rows)]
        if pa.types.is_dictionary(type_):
            array = pa.array(values, type_.value_type).dictionary_encode().cast(type_)
        else:
            array = pa.array(values, type_)
        made.append(with_garbage(array).slice(1))
    return made


def with_garbage(array: pa.Array) -> pa.Array:
    """The array with something else than zero under its nulls."""
    filled = [each for each in array.to_pylist() if each is not None]
    if not filled or pa.types.is_dictionary(array.type) or pa.types.is_string_view(array.type):
        return array
    under = pa.array([filled[-1] if v is None else v for v in array.to_pylist()], array.type)
    buffers = [array.buffers()[0], *under.buffers()[1:]]
    return pa.Array.from_buffers(array.type, len(array), buffers)


def keys_of(columns: Sequence[pa.Array]) -> list[tuple[Any, ...]]:
    return [tuple(map(plain, row)) for row in zip(*(c.to_pylist() for c in columns), strict=True)]


def check(index: KeyIndex, model: Model) -> None:
    live = index.live_slots()
    assert len(index) == len(live) == len(model.slot_of)
    columns = index.keys(live)
    assert [each.type for each in columns] == list(index.types)
    for each in columns:
        each.validate(full=True)
    found = keys_of(columns)
    assert {key: model.slot_of[key] for key in found} == dict(
        zip(found, live.tolist(), strict=True)
    )
    assert set(keys_of(index.keys(index.changed_slots()))) == model.changed
    removed = [key for piece in index.removed_keys() for key in keys_of(piece)]
    assert sorted(map(repr, removed)) == sorted(map(repr, model.removed))
    assert int(live.max(initial=-1)) < index.capacity
    assert index.size_bytes > 0


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[pa.DataType], list[tuple[str, Any]]]:
    """Types of key columns, and what is done to an index of them."""
    types = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3))
    row = st.tuples(*(st.none() | st.sampled_from(VALUES[each] or [None]) for each in types))
    step = st.one_of(
        st.tuples(st.just("insert"), st.lists(row, max_size=12)),
        st.tuples(st.just("find"), st.lists(row, max_size=6)),
        st.tuples(st.just("remove"), st.integers(0, 2**20)),
        st.tuples(st.just("mark"), st.none()),
    )
    return types, draw(st.lists(step, max_size=12))


def apply(index: KeyIndex, model: Model, action: str, argument: Any) -> None:
    if action == "insert":
        columns = arrays(argument, index.types)
        slots = index.insert(columns)
        added = model.insert(keys_of(columns), slots.of_rows.tolist())
        assert slots.added.tolist() == added
    elif action == "find":
        columns = arrays(argument, index.types)
        expected = [model.slot_of.get(key, -1) for key in keys_of(columns)]
        assert index.find(columns).tolist() == expected
    elif action == "remove":
        # Every key whose bit is set in the number.
        live = index.live_slots()
        gone = (
            live[[bool(argument >> (i % 20) & 1) for i in range(len(live))]] if len(live) else live
        )
        keys = keys_of(index.keys(gone))
        index.remove(gone)
        model.remove(keys)
    else:
        index.mark_snapshot()
        model.mark()


@settings(max_examples=examples(120))
@given(history=histories())
def test_slots_are_those_of_a_dictionary(
    history: tuple[list[pa.DataType], list[tuple[str, Any]]],
) -> None:
    types, steps = history
    index, model = KeyIndex(types), Model()
    for action, argument in steps:
        apply(index, model, action, argument)
        check(index, model)


@pytest.mark.parametrize("type_", list(VALUES), ids=str)
def test_every_type_is_a_key_and_so_is_null(type_: pa.DataType) -> None:
    rows = [(value,) for value in [None, *VALUES[type_], None]]
    index, model = KeyIndex([type_]), Model()
    apply(index, model, "insert", rows)
    check(index, model)
    apply(index, model, "find", rows)


@pytest.mark.parametrize("kind", ["numbers", "short strings", "long strings", "pairs"])
def test_a_hundred_thousand_keys_grow_shrink_and_use_slots_again(kind: str) -> None:
    count = 100_000
    numbers = pa.array(np.arange(count))
    texts = numbers.cast(pa.string())
    columns = {
        "numbers": [numbers],
        "short strings": [texts],
        "long strings": [pa.array([f"a key number {n}" for n in range(count)])],
        "pairs": [pa.array(np.arange(count) % 317), texts],
    }[kind]
    index = KeyIndex([each.type for each in columns])
    slots = index.insert(columns).of_rows
    assert np.array_equal(np.sort(slots), np.arange(count))
    assert np.array_equal(index.find(columns), slots)
    capacity = index.capacity
    assert count <= capacity < 2 * count + 512
    for index_, each in enumerate(index.keys(slots)):
        assert each.equals(columns[index_])
    gone = slots[::3]
    index.remove(gone)
    found = index.find(columns)
    assert (found[::3] == -1).all()
    kept = np.ones(count, dtype=np.bool_)
    kept[::3] = False
    assert np.array_equal(found[kept], slots[kept])
    again = index.insert(columns)
    assert sorted(again.added.tolist()) == sorted(gone.tolist())
    assert index.capacity == capacity
    index.remove(index.live_slots())
    assert len(index) == 0
    assert (index.find(columns) == -1).all()


def test_strings_that_nobody_uses_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "_STRINGS_KEPT_MIN", 64)
    index, model = KeyIndex([pa.string(), pa.int64()]), Model()
    for round_ in range(30):
        rows = [(f"a long string, number {round_ * 20 + n // 2}", n) for n in range(40)]
        apply(index, model, "insert", rows)
        if round_ == 3:
            apply(index, model, "mark", None)
        if round_:
            gone = [f"a long string, number {(round_ - 1) * 20 + n // 2}" for n in range(40)]
            before = [(text, n) for n, text in enumerate(gone)]
            slots = index.find(arrays(before, index.types))
            index.remove(slots)
            model.remove(before)
        check(index, model)
        apply(index, model, "find", rows)
    (interner,) = (each for each in index._interners if each is not None)
    assert len(interner) < 10 * 20


def test_looking_up_strings_keeps_none_of_them() -> None:
    index = KeyIndex([pa.string()])
    index.insert([pa.array(["a string that is kept"])])
    size = index.size_bytes
    for begin in range(0, 50_000, 10_000):
        strangers = pa.array(
            [f"a string that is asked for {n}" for n in range(begin, begin + 10_000)]
        )
        assert (index.find([strangers]) == -1).all()
    assert index.size_bytes == size


def test_every_nan_is_the_same_key() -> None:
    bits = [0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001]
    nans = np.array(bits, dtype=np.uint64).view(np.float64)
    index = KeyIndex([pa.float64()])
    assert index.insert([pa.array(nans)]).of_rows.tolist() == [0, 0, 0, 0]


def test_no_rows_have_no_slots() -> None:
    index = KeyIndex([pa.string(), pa.int64()])
    empty = [pa.array([], pa.string()), pa.array([], pa.int64())]
    assert len(index.find(empty)) == len(index.insert(empty).of_rows) == 0
    index.remove(np.empty(0, dtype=np.int64))
    assert [len(each) for each in index.keys(np.empty(0, dtype=np.int64))] == [0, 0]
