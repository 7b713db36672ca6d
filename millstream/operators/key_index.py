"""Maps the key columns of a batch to dense slot numbers, by which all state is indexed.

A key becomes a row of 64-bit words: one a column (a number's bits, a short string's bytes, a
long string's number) and a last one with a bit for each null. Equal keys have equal words::

    ("JFK", 7, null) ─▶ [ 3·2⁵⁶+"JFK" │ 7 │ 0 │ 0b100 ] ─▶ slot 42

Slots are dense: a removed key's slot is given to the next new key, so that state whose keys
expire stays as large as the keys that live.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.operators.kernels import key_index as kernels
from millstream.operators.string_interner import StringInterner

Int64Array = npt.NDArray[np.int64]

_CAPACITY_FIRST = 256
# Strings that no live key uses are dropped when they are the greater part by this factor.
_STRINGS_KEPT_MAX = 4
_STRINGS_KEPT_MIN = 65_536


class KeyIndex:
    """Dense slot numbers for keys of the given column types; a null is a key like any other.

    Parameters
    ----------
    types
        Type of each key column: integers, floats (−0.0 is 0.0, and there is one NaN), booleans,
        dates, times, timestamps, durations, strings, binaries.
    """

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self.types = tuple(types)
        self._width = len(self.types) + 1
        self._interners = [StringInterner() if _is_bytes(each) else None for each in self.types]
        self._table = np.full(4 * _CAPACITY_FIRST, kernels.FREE, dtype=np.int64)
        self._keys = np.zeros((_CAPACITY_FIRST, self._width), dtype=np.int64)
        self._free = np.zeros(_CAPACITY_FIRST, dtype=np.int64)
        self._meta = np.zeros(4, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._meta[kernels.META_LIVE])

    @property
    def capacity(self) -> int:
        """All slots are below this; it grows as keys are inserted."""
        return len(self._keys)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        strings = sum(each.size_bytes for each in self._interners if each is not None)
        return self._table.nbytes + self._keys.nbytes + self._free.nbytes + strings

    def slots(self, columns: Sequence[pa.Array], insert: bool) -> Int64Array:
        """Return the slot of each row's key.

        Parameters
        ----------
        columns
            Key columns of one length n, of the index's types.
        insert
            Give keys that are missing a slot; otherwise theirs is -1.

        Returns
        -------
        numpy.ndarray
            int64, shape (n,).
        """
        words = self._words(columns)
        slots = np.empty(len(words), dtype=np.int64)
        done = 0
        while True:
            done = kernels.find_slots(
                words, done, insert, self._table, self._keys, self._free, self._meta, slots
            )
            if done == len(words):
                return slots
            self._grow()

    def remove(self, slots: Int64Array) -> None:
        """Remove the keys of `slots`, which must be live and distinct."""
        kernels.remove_slots(slots, self._table, self._keys, self._free, self._meta)
        self._drop_unused_strings()

    def keys(self, slots: Int64Array) -> list[pa.Array]:
        """Return the key columns of live `slots`."""
        words = self._keys[slots]
        nulls = words[:, -1]
        return [
            self._column(index, words[:, index], (nulls >> index) & 1 == 1)
            for index in range(len(self.types))
        ]

    def live_slots(self) -> Int64Array:
        """Return the slots of all keys, ascending."""
        used = int(self._meta[kernels.META_SLOTS_USED])
        live = np.ones(used, dtype=np.bool_)
        live[self._free[: int(self._meta[kernels.META_FREE_SLOTS])]] = False
        return np.flatnonzero(live)

    def _words(self, columns: Sequence[pa.Array]) -> Int64Array:
        """Return the words of each row, shape (n, W)."""
        assert len(columns) == len(self.types), "one array a key column"
        words = np.zeros((len(columns[0]), self._width), dtype=np.int64)
        for index, column in enumerate(columns):
            valid = _valid(column)
            if valid is not None:
                words[:, -1] |= (~valid).astype(np.int64) << index
            interner = self._interners[index]
            if interner is None:
                words[:, index] = _number_words(column)
            else:
                _write_string_words(column, valid, interner, words, index)
        return words

    def _column(self, index: int, words: Int64Array, null: npt.NDArray[np.bool_]) -> pa.Array:
        """Return the values that `words` of key column `index` stand for."""
        type_ = self.types[index]
        interner = self._interners[index]
        mask = null if null.any() else None
        if interner is not None:
            return pa.array(_strings(words, interner), pa.large_binary(), mask=mask).cast(type_)
        if pat.is_floating(type_):
            return pa.array(words.view(np.float64), mask=mask).cast(type_)
        if pat.is_boolean(type_):
            return pa.array(words != 0, mask=mask)
        if pat.is_uint64(type_):
            return pa.array(words.view(np.uint64), mask=mask)
        numbers = pa.array(words, mask=mask)
        if type_.bit_width < 64 and not pat.is_integer(type_):
            numbers = numbers.cast(pa.int32())
        return numbers.cast(type_)

    def _grow(self) -> None:
        """Double what is full: slots, or the hash table (also to shed removed entries)."""
        used = int(self._meta[kernels.META_SLOTS_USED])
        if used == len(self._keys) and self._meta[kernels.META_FREE_SLOTS] == 0:
            self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
            self._free = np.concatenate([self._free, np.zeros_like(self._free)])
        if (self._meta[kernels.META_TABLE_FILLED] + 1) * 2 > len(self._table):
            size = len(self._table)
            while size < 4 * (len(self) + 1):
                size *= 2
            old = self._table
            self._table = np.full(size, kernels.FREE, dtype=np.int64)
            kernels.rehash(old, self._table, self._keys, self._meta)

    def _drop_unused_strings(self) -> None:
        """Make the interners anew when few of their strings are used by a live key."""
        kept = max((len(each) for each in self._interners if each is not None), default=0)
        if kept < _STRINGS_KEPT_MIN or kept < _STRINGS_KEPT_MAX * len(self):
            return
        live = self.live_slots()
        columns = self.keys(live)
        self._interners = [None if each is None else StringInterner() for each in self._interners]
        self._keys[live] = self._words(columns)
        old = self._table
        self._table = np.full(len(old), kernels.FREE, dtype=np.int64)
        kernels.rehash(old, self._table, self._keys, self._meta)


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pat.is_string(type_)
        or pat.is_large_string(type_)
        or pat.is_binary(type_)
        or pat.is_large_binary(type_)
    )


def _valid(column: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Return which values are not null, or `None` where none is."""
    if column.null_count == 0:
        return None
    valid: npt.NDArray[np.bool_] = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return valid


def _number_words(column: pa.Array) -> Int64Array:
    """Return a word for each number, equal iff the numbers are; 0 for null."""
    type_ = column.type
    if pat.is_floating(type_):
        floats = np.array(pc.fill_null(column.cast(pa.float64()), 0.0), dtype=np.float64)
        floats[floats == 0.0] = 0.0
        floats[np.isnan(floats)] = np.nan
        return floats.view(np.int64)
    if pat.is_uint64(type_):
        return np.asarray(pc.fill_null(column, 0)).view(np.int64)
    if type_.bit_width < 64 and not pat.is_integer(type_) and not pat.is_boolean(type_):
        column = column.cast(pa.int32())
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0))


def _write_string_words(
    column: pa.Array,
    valid: npt.NDArray[np.bool_] | None,
    interner: StringInterner,
    words: Int64Array,
    index: int,
) -> None:
    """Write the words of a string or binary column into `words[:, index]`."""
    large = column.cast(
        pa.large_binary()
        if pat.is_binary(column.type) or pat.is_large_binary(column.type)
        else pa.large_string()
    )
    _, offset_buffer, data_buffer = large.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[
        large.offset : large.offset + len(large) + 1
    ]
    data = np.frombuffer(data_buffer if data_buffer is not None else b"", dtype=np.uint8)
    long_rows = np.empty(len(large), dtype=np.int64)
    known = np.empty(0, dtype=np.bool_) if valid is None else valid
    count = kernels.string_words(offsets, data, known, words, index, long_rows)
    if count:
        interner.write_words(long_rows[:count], offsets, data, words, index)


def _strings(words: Int64Array, interner: StringInterner) -> list[bytes]:
    """Return the strings of `words`, short ones decoded, long ones looked up."""
    interned = words < 0
    sizes = (words >> 56) & 0xFF
    little = words.astype("<i8").view(np.uint8).reshape(-1, 8)
    result = [
        little[row, : sizes[row]].tobytes() if not interned[row] else b""
        for row in range(len(words))
    ]
    rows = np.flatnonzero(interned)
    for row, string in zip(rows.tolist(), interner.strings(words[rows]), strict=True):
        result[row] = string
    return result
