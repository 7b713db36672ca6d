"""The loops over the hash table, with hashes that collide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.kernels import key_index as kernels

WordArray = npt.NDArray[np.uint64]

# `find_slots` takes hashes on to 31 bits by a factor; its inverse gives hashes that become
# what a test wants them to be.
_INVERSE = pow(int(kernels.LAST_FACTOR), -1, 2**64)


def hashes_that_become(wanted: list[int]) -> WordArray:
    shift = int(kernels.LAST_SHIFT)
    return np.array([(hash_ << shift) * _INVERSE % 2**64 for hash_ in wanted], dtype=np.uint64)


class Table:
    """The arrays of an index of one word a key, with room for `capacity`."""

    def __init__(self, size: int, capacity: int) -> None:
        self.table = np.full(size, kernels.FREE, dtype=np.uint64)
        self.keys = np.zeros((capacity, 1), dtype=np.uint64)
        self.free = np.zeros(capacity, dtype=np.uint64)
        self.flags = np.zeros(capacity, dtype=np.uint8)
        self.meta = np.zeros(4, dtype=np.uint64)

    def find(self, keys: list[int], hashes: list[int], insert: bool) -> tuple[int, list[int]]:
        slots = np.full(len(keys), -7, dtype=np.int64)
        added = np.zeros(len(keys), dtype=np.int64)
        self.meta[kernels.META_ADDED] = 0
        done = kernels.find_slots(
            np.array([keys], dtype=np.uint64), hashes_that_become(hashes), 0, insert,
            self.table, self.keys, self.free, self.flags, self.meta, slots, added,
        )  # fmt: skip
        return done, slots[:done].tolist()

    def remove(self, slots: list[int], hashes: list[int]) -> None:
        kernels.remove_slots(
            np.array(slots, dtype=np.uint64), hashes_that_become(hashes),
            self.table, self.free, self.flags, self.meta,
        )  # fmt: skip


@settings(max_examples=300)
@given(
    hash_of=st.lists(st.integers(0, 9) | st.integers(2**31 - 3, 2**31 - 1), min_size=8, max_size=8),
    steps=st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 7))), max_size=12),
)
def test_keys_that_collide_are_found_and_removed(
    hash_of: list[int], steps: list[tuple[bool, set[int]]]
) -> None:
    table = Table(size=16, capacity=8)
    slot_of: dict[int, int] = {}
    for insert, chosen in steps:
        keys = sorted(chosen)
        if insert:
            done, slots = table.find(keys, [hash_of[key] for key in keys], insert=True)
            assert done == len(keys)
            slot_of.update(zip(keys, slots, strict=True))
        else:
            gone = [key for key in keys if key in slot_of]
            table.remove([slot_of.pop(key) for key in gone], [hash_of[key] for key in gone])
        _, found = table.find(list(range(8)), hash_of, insert=False)
        assert found == [slot_of.get(key, -1) for key in range(8)]
        assert len(set(slot_of.values())) == len(slot_of)
        assert table.meta[kernels.META_LIVE] == len(slot_of)
        assert np.count_nonzero(table.table != kernels.FREE) == len(slot_of)


@pytest.mark.parametrize(("size", "capacity"), [(8, 100), (64, 4)])
def test_without_room_the_row_is_named(size: int, capacity: int) -> None:
    table = Table(size, capacity)
    done, slots = table.find([1, 2, 1, 3, 4, 5], [1, 2, 1, 3, 4, 5], insert=True)
    assert (done, slots) == (5, [0, 1, 0, 2, 3])
    done, slots = table.find([1, 9, 2], [1, 9, 2], insert=False)
    assert (done, slots) == (3, [0, -1, 1])


def test_flags_say_what_came() -> None:
    table = Table(16, 8)
    table.find([5, 6], [0, 0], insert=True)
    table.flags[:] = kernels.KNOWN
    table.find([6], [0], insert=True)
    table.find([5], [0], insert=False)
    assert table.flags[:2].tolist() == [kernels.KNOWN, kernels.KNOWN | kernels.CHANGED]
    table.remove([1], [0])
    assert table.flags[1] == 0


@given(hashes=st.lists(st.integers(0, 12), max_size=8))
def test_entries_can_all_be_found_in_a_new_table(hashes: list[int]) -> None:
    before = Table(16, 8)
    keys = list(range(len(hashes)))
    _, slots = before.find(keys, hashes, insert=True)
    after = Table(32, 8)
    after.keys = before.keys
    kernels.enter_entries(before.table, after.table)
    assert after.find(keys, hashes, insert=False)[1] == slots


@given(rows=st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 3), min_size=1, max_size=20))
def test_a_hash_depends_on_every_word_and_its_place(rows: list[tuple[int, ...]]) -> None:
    words = np.array(rows, dtype=np.uint64).T.copy()
    hashes = np.full(len(rows), kernels.SEED, dtype=np.uint64)
    kernels.hash_words(words, hashes)
    expected = []
    for row in rows:
        value = int(kernels.SEED)
        for word in row:
            value = (value ^ word) * int(kernels.FACTOR) % 2**64
            value ^= value >> 32
        expected.append(value)
    assert [int(each) for each in hashes] == expected


@pytest.mark.parametrize(
    "values",
    [
        np.arange(4096).astype(np.uint64),
        np.arange(4096).astype(np.float64).view(np.uint64),
        (np.arange(4096) << 52).astype(np.uint64),
        (np.arange(4096) * 3_600_000_000).astype(np.uint64),
    ],
    ids=["counted", "floats", "high bits", "hours"],
)
def test_regular_keys_spread_over_the_table(values: WordArray) -> None:
    hashes = np.full(len(values), kernels.SEED, dtype=np.uint64)
    kernels.hash_words(values.reshape(1, -1), hashes)
    places = (hashes * kernels.LAST_FACTOR >> kernels.LAST_SHIFT) & np.uint64(8191)
    # 4096 keys thrown at random into 8192 places fill 39 % of them.
    assert len(np.unique(places)) > 0.35 * 8192


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
@pytest.mark.parametrize("slots", [[], [3], [4, 0, 2]])
def test_rows_are_taken_column_by_column_and_cleared(dtype: type, slots: list[int]) -> None:
    matrix: npt.NDArray[Any] = np.arange(1, 16, dtype=dtype).reshape(5, 3)
    chosen = np.array(slots, dtype=np.int64)
    columns: npt.NDArray[Any] = np.empty((3, len(slots)), dtype=dtype)
    kernels.gather_rows(matrix, chosen, columns)
    assert columns.tolist() == matrix[chosen].T.tolist()
    expected = matrix.copy()
    expected[chosen] = 0
    kernels.clear_rows(matrix, chosen)
    assert matrix.tolist() == expected.tolist()
