"""Strings as words of 64 bits, so that a key is a few words of fixed width.

A short string is a word by itself; each distinct long one has a number and is kept in an arena.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.arrow_buffers import new_values, strings_of, valid_bytes_of
from millstream.operators.kernels import strings as kernels
from millstream.operators.kernels.key_index import FREE, enter_entries

WordArray = npt.NDArray[np.uint64]

_TABLE_SIZE_FIRST = 1024
_ARENA_BYTES_FIRST = 16 * 1024


class StringInterner:
    """The words of byte strings; long ones are numbered in the order of first sight.

    A string is compared byte by byte, so that two with the same hash stay apart.
    """

    def __init__(self) -> None:
        self._table = np.full(_TABLE_SIZE_FIRST, FREE, dtype=np.uint64)
        self._ends = np.zeros(_TABLE_SIZE_FIRST // 2 + 2, dtype=np.uint64)
        self._arena = np.empty(_ARENA_BYTES_FIRST, dtype=np.uint8)

    def __len__(self) -> int:
        return int(self._ends[0])

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._table.nbytes + self._ends.nbytes + self._arena.nbytes

    def write_words(self, strings: pa.Array, words: WordArray, insert: bool) -> None:
        """Write the words of a string or binary array into `words`; 0 for nulls.

        Parameters
        ----------
        insert
            Keep long strings that are new; otherwise their word is `kernels.UNKNOWN`.
        """
        offsets, data = strings_of(strings)
        rows = new_values(len(strings), np.int64)
        valid = valid_bytes_of(strings)
        count = kernels.string_words(offsets, data, valid, words, rows)
        rows = rows[:count]
        done = 0
        while done < count:
            done = kernels.intern_strings(
                rows, done, insert, offsets, data,
                self._table, self._ends, self._arena, words,
            )  # fmt: skip
            if done < count:
                row = rows[done]
                self._grow(int(offsets[row + 1]) - int(offsets[row]))

    def strings(
        self, words: WordArray, type_: pa.DataType, null: npt.NDArray[np.bool_] | None
    ) -> pa.Array:
        """Return what `words` stand for, as an array of a string or binary type.

        Parameters
        ----------
        null
            `True` where the string is null; its word is 0. `None`: none is.
        """
        count = len(words)
        offsets = new_values(count + 1, np.int64)
        words = np.ascontiguousarray(words)
        nothing = np.empty(0, dtype=np.uint8)
        size = int(kernels.decode_strings(words, self._ends, self._arena, offsets, nothing))
        data = new_values(size, np.uint8)
        if size:
            kernels.decode_strings(words, self._ends, self._arena, offsets, data)
        large = pat.is_large_string(type_) or pat.is_large_binary(type_)
        ends = offsets if large else offsets.astype(np.int32)
        bitmap = None
        if null is not None and null.any():
            bitmap = pa.py_buffer(np.packbits(~null, bitorder="little"))
        buffers = [bitmap, pa.py_buffer(ends), pa.py_buffer(data)]
        return pa.Array.from_buffers(type_, count, buffers)

    def _grow(self, needed_bytes: int) -> None:
        """Make room for one more string of `needed_bytes`, and as many again as there are."""
        count = len(self)
        if (count + 1) * 2 > len(self._table):
            old = self._table
            self._table = np.full(2 * len(old), FREE, dtype=np.uint64)
            enter_entries(old, self._table)
        if count + 3 > len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
        used = int(self._ends[1 + count])
        if used + needed_bytes > len(self._arena):
            larger = np.empty(max(2 * len(self._arena), used + needed_bytes), dtype=np.uint8)
            larger[:used] = self._arena[:used]
            self._arena = larger
