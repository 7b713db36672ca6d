"""Maps the key columns of a batch to dense slot numbers, by which all state is indexed.

A key becomes a row of 64-bit words: one a column (a number's bits, a short string's bytes, a
long string's number) and a last one with a bit for each null. Equal keys have equal words::

    ("JFK", 7, null) ─▶ [ 3·2⁵⁶+"JFK" │ 7 │ 0 │ 0b100 ] ─▶ slot 42

Slots are dense: a removed key's slot is given to the next new key, so that state whose keys
expire stays as large as the keys that live. The index also knows which keys came and went since
the last snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.operators.arrow_buffers import (
    bits_of,
    new_values,
    storage_dtype,
    valid_bytes_of,
    values_of,
)
from millstream.operators.kernels import key_index as kernels
from millstream.operators.string_interner import StringInterner

Int64Array = npt.NDArray[np.int64]
WordArray = npt.NDArray[np.uint64]

_CAPACITY_FIRST = 256
# Strings that no live key uses are dropped when they are the greater part by this factor.
_STRINGS_KEPT_MAX = 4
_STRINGS_KEPT_MIN = 65_536


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a batch's keys.

    Parameters
    ----------
    of_rows
        int64, shape (n,).
    added
        Those of keys that were missing, int64, each once.
    """

    of_rows: Int64Array
    added: Int64Array


class KeyIndex:
    """Dense slot numbers for keys of the given column types; a null is a key like any other.

    Parameters
    ----------
    types
        Type of each key column. Floats are compared by value: −0.0 is 0.0, and there is one
        NaN. Types without numbers or bytes of their own (decimals) go by their text.
    """

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self.types = tuple(types)
        self._width = len(self.types) + 1
        self._interners = [None if _is_word(each) else StringInterner() for each in self.types]
        self._table = np.full(4 * _CAPACITY_FIRST, kernels.FREE, dtype=np.uint64)
        self._keys = np.zeros((_CAPACITY_FIRST, self._width), dtype=np.uint64)
        self._free = np.zeros(_CAPACITY_FIRST, dtype=np.uint64)
        self._flags = np.zeros(_CAPACITY_FIRST, dtype=np.uint8)
        self._meta = np.zeros(4, dtype=np.uint64)
        self._removed: list[list[pa.Array]] = []

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
        arrays = (self._table, self._keys, self._free, self._flags)
        return sum(each.nbytes for each in arrays) + strings

    def insert(self, columns: Sequence[pa.Array]) -> Slots:
        """Return the slot of each row's key; missing keys get one, and all count as changed.

        Parameters
        ----------
        columns
            Key columns of one length n, of the index's types.
        """
        words = self._words(columns, insert=True)
        added = new_values(words.shape[1], np.int64)
        self._meta[kernels.META_ADDED] = 0
        slots = self._find(words, added, insert=True)
        return Slots(slots, added[: int(self._meta[kernels.META_ADDED])])

    def find(self, columns: Sequence[pa.Array]) -> Int64Array:
        """Return the slot of each row's key, -1 where it is missing; int64, shape (n,)."""
        words = self._words(columns, insert=False)
        return self._find(words, np.empty(0, dtype=np.int64), insert=False)

    def remove(self, slots: Int64Array) -> None:
        """Remove the keys of `slots`, which must be live and distinct."""
        known = slots[self._flags[slots] & kernels.KNOWN != 0]
        if len(known):
            self._removed.append(self.keys(known))
        hashes = _hashes(taken_rows(self._keys, slots))
        kernels.remove_slots(
            slots.view(np.uint64), hashes, self._table, self._free, self._flags, self._meta
        )
        self._drop_unused_strings()

    def keys(self, slots: Int64Array) -> list[pa.Array]:
        """Return the key columns of live `slots`."""
        words = taken_rows(self._keys, slots)
        nulls = words[-1]
        if not nulls.any():
            return [self._column(index, words[index], None) for index in range(len(self.types))]
        return [
            self._column(index, words[index], nulls & np.uint64(1 << index) != 0)
            for index in range(len(self.types))
        ]

    def grouped(self, slots: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Group live `slots` by all of their key columns but the last, which has no nulls.

        Returns
        -------
        tuple
            The number of each slot's group, int64, shape (n,); and a slot of each group.
        """
        words = taken_rows(self._keys, slots)
        words = np.ascontiguousarray(np.delete(words, len(self.types) - 1, axis=0))
        count = len(slots)
        hashes = _hashes(words)
        table = np.full(1 << (2 * count).bit_length(), kernels.FREE, dtype=np.uint64)
        keys = new_values(count * len(words), np.uint64).reshape(count, len(words))
        free, flags = np.zeros(1, dtype=np.uint64), np.zeros(count, dtype=np.uint8)
        meta = np.zeros(4, dtype=np.uint64)
        groups, added = new_values(count, np.int64), new_values(count, np.int64)
        done = kernels.find_slots(
            words, hashes, 0, True, table, keys, free, flags, meta, groups, added
        )
        assert done == count
        firsts = np.empty(int(meta[kernels.META_LIVE]), dtype=np.int64)
        firsts[groups[::-1]] = slots[::-1]
        return groups, firsts

    def numbers(self, slots: Int64Array, column: int) -> Int64Array:
        """Return the values of an int64 key column without nulls, of live `slots`."""
        return self._keys[slots, column].view(np.int64)

    def live_slots(self) -> Int64Array:
        """Return the slots of all keys, ascending."""
        used = int(self._meta[kernels.META_SLOTS_USED])
        live = np.ones(used, dtype=np.bool_)
        live[self._free[: int(self._meta[kernels.META_FREE_SLOTS])]] = False
        return np.flatnonzero(live)

    def changed_slots(self) -> Int64Array:
        """Return the live slots whose keys were inserted, or came again, since the snapshot."""
        return np.flatnonzero(self._flags & kernels.CHANGED)

    def mark_changed(self, slots: Int64Array) -> None:
        """Note that the state of live `slots` changed though their keys were not inserted."""
        self._flags[slots] |= kernels.CHANGED

    def removed_keys(self) -> list[list[pa.Array]]:
        """Return the keys removed since the last snapshot that it holds, in pieces."""
        return self._removed

    def mark_snapshot(self) -> None:
        """Note that a snapshot was taken: all live keys are in it, changes count from here."""
        self._removed = []
        self._flags[self.live_slots()] = kernels.KNOWN

    def _find(self, words: WordArray, added: Int64Array, *, insert: bool) -> Int64Array:
        hashes = _hashes(words)
        slots: Int64Array = new_values(len(hashes), np.int64)
        done = 0
        while True:
            done = kernels.find_slots(
                words, hashes, done, insert, self._table, self._keys, self._free, self._flags,
                self._meta, slots, added,
            )  # fmt: skip
            if done == len(hashes):
                return slots
            self._grow()

    def _words(self, columns: Sequence[pa.Array], *, insert: bool) -> WordArray:
        """Return the words of each row, shape (W, n)."""
        assert len(columns) == len(self.types), "one array a key column"
        count = len(columns[0])
        words: WordArray = new_values(count * self._width, np.uint64).reshape(self._width, count)
        words[-1] = 0
        for index, (given, interner) in enumerate(zip(columns, self._interners, strict=True)):
            column = given
            if interner is None:
                _write_number_words(column, words[index])
            else:
                column = _to_bytes(given)
                interner.write_words(column, words[index], insert)
            if column.null_count:
                null = ~valid_bytes_of(column)
                words[index, null] = 0
                words[-1] |= null.astype(np.uint64) << np.uint64(index)
        return words

    def _column(self, index: int, words: WordArray, null: npt.NDArray[np.bool_] | None) -> pa.Array:
        """Return the values that `words` of key column `index` stand for; `None`: none is null."""
        type_ = self.types[index]
        interner = self._interners[index]
        if interner is not None:
            return _from_bytes(interner.strings(words, _bytes_type(type_), null), type_)
        mask = null if null is not None and null.any() else None
        if pat.is_boolean(type_):
            return pa.array(words != 0, mask=mask)
        dtype = storage_dtype(type_)
        assert dtype is not None
        values = words.view(np.float64 if pat.is_floating(type_) else np.int64)
        numbers = pa.array(values.astype(dtype), mask=mask)
        return numbers if numbers.type == type_ else numbers.view(type_)

    def _grow(self) -> None:
        """Double what is full: slots or the hash table."""
        if len(self) == len(self._keys):
            self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
            self._free = np.concatenate([self._free, np.zeros_like(self._free)])
            self._flags = np.concatenate([self._flags, np.zeros_like(self._flags)])
        if (len(self) + 1) * 2 > len(self._table):
            old = self._table
            self._table = np.full(2 * len(old), kernels.FREE, dtype=np.uint64)
            kernels.enter_entries(old, self._table)

    def _drop_unused_strings(self) -> None:
        """Make the interners anew when few of their strings are used by a live key."""
        kept = max((len(each) for each in self._interners if each is not None), default=0)
        if kept < _STRINGS_KEPT_MIN or kept < _STRINGS_KEPT_MAX * len(self):
            return
        live = self.live_slots()
        columns = self.keys(live)
        self._interners = [None if each is None else StringInterner() for each in self._interners]
        words = self._words(columns, insert=True)
        self._keys[live] = words.T
        self._table.fill(kernels.FREE)
        hashes = (_hashes(words) * kernels.LAST_FACTOR) >> kernels.LAST_SHIFT
        entries = (hashes << kernels.HASH_SHIFT) | live.view(np.uint64)
        kernels.enter_entries(entries, self._table)


def taken_rows(matrix: npt.NDArray[Any], slots: Int64Array) -> npt.NDArray[Any]:
    """Return the rows `slots` of `matrix`, shape (capacity, W), column by column: (W, n)."""
    width = matrix.shape[1]
    columns = new_values(width * len(slots), matrix.dtype).reshape(width, len(slots))
    kernels.gather_rows(matrix, slots, columns)
    return columns


def _hashes(words: WordArray) -> WordArray:
    """Return a hash for each of n keys, `words` being of shape (W, n)."""
    hashes: WordArray = new_values(words.shape[1], np.uint64)
    hashes.fill(kernels.SEED)
    kernels.hash_words(words, hashes)
    return hashes


def _is_word(type_: pa.DataType) -> bool:
    """Return `True` iff a value of `type_` is one number."""
    return bool(pat.is_boolean(type_)) or storage_dtype(type_) is not None


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pat.is_string(type_)
        or pat.is_large_string(type_)
        or pat.is_binary(type_)
        or pat.is_large_binary(type_)
    )


def _bytes_type(type_: pa.DataType) -> pa.DataType:
    """Return the string or binary type in which values of `type_` are kept."""
    if pat.is_dictionary(type_):
        return _bytes_type(type_.value_type)
    if _is_bytes(type_):
        return type_
    binary = pat.is_fixed_size_binary(type_) or pat.is_binary_view(type_)
    return pa.binary() if binary else pa.string()


def _to_bytes(column: pa.Array) -> pa.Array:
    """Return a key column that is no number as strings or binaries."""
    if pat.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pat.is_float16(column.type):
        column = pc.add(column.cast(pa.float32()), 0.0)  # one zero
    return column if _is_bytes(column.type) else column.cast(_bytes_type(column.type))


def _from_bytes(strings: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return strings or binaries as the key column that they were."""
    if strings.type == type_:
        return strings
    if pat.is_null(type_):
        return pa.nulls(len(strings))
    if pat.is_dictionary(type_):
        return _from_bytes(strings, type_.value_type).dictionary_encode().cast(type_)
    return strings.cast(type_)


def _write_number_words(column: pa.Array, words: WordArray) -> None:
    """Write a word for each number into `words`, equal iff the numbers are."""
    if pat.is_boolean(column.type):
        bitmap, first = bits_of(column)
        words[:] = np.unpackbits(bitmap, bitorder="little")[first : first + len(column)]
    elif pat.is_floating(column.type):
        # Adding 0.0 makes a positive zero of a negative one.
        with np.errstate(invalid="ignore"):  # a signalling NaN is as good as any
            floats = values_of(column).astype(np.float64) + 0.0
        floats[np.isnan(floats)] = np.nan
        words[:] = floats.view(np.uint64)
    else:
        values = values_of(column)
        # Signed numbers are extended by their sign.
        target = words if values.dtype == np.uint64 else words.view(np.int64)
        target[:] = values
