"""Gives each distinct long string a number, so that a key is a few words of fixed width."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millstream.operators.kernels.key_index import FREE, intern_strings, rehash_strings

Int64Array = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]

_TABLE_SIZE_FIRST = 1024
_ARENA_BYTES_FIRST = 16 * 1024


class StringInterner:
    """Numbers for byte strings, in the order of first sight; strings are kept in one arena.

    A string is compared byte by byte, so that two with the same hash stay apart.
    """

    def __init__(self) -> None:
        self._table = np.full(_TABLE_SIZE_FIRST, FREE, dtype=np.int64)
        self._ends = np.zeros(_TABLE_SIZE_FIRST // 2 + 2, dtype=np.int64)
        self._arena = np.empty(_ARENA_BYTES_FIRST, dtype=np.uint8)

    def __len__(self) -> int:
        return int(self._ends[0])

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._table.nbytes + self._ends.nbytes + self._arena.nbytes

    def write_words(
        self, rows: Int64Array, offsets: Int64Array, data: ByteArray, words: Int64Array, column: int
    ) -> None:
        """Write the words of the strings in `rows` into `words[rows, column]`."""
        done = 0
        while True:
            done = intern_strings(
                rows, done, offsets, data, self._table, self._ends, self._arena, words, column
            )
            if done == len(rows):
                return
            row = rows[done]
            self._grow(int(offsets[row + 1] - offsets[row]))

    def strings(self, words: Int64Array) -> list[bytes]:
        """Return the strings that `words` stand for."""
        numbers = (words & np.int64(2**63 - 1)).tolist()
        arena, ends = self._arena, self._ends
        return [arena[ends[1 + number] : ends[2 + number]].tobytes() for number in numbers]

    def _grow(self, needed_bytes: int) -> None:
        """Make room for one more string of `needed_bytes`, and as many again as there are."""
        count = len(self)
        if (count + 1) * 2 > len(self._table):
            self._table = np.full(len(self._table) * 2, FREE, dtype=np.int64)
            rehash_strings(self._table, self._ends, self._arena)
        if count + 3 > len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
        used = int(self._ends[1 + count])
        if used + needed_bytes > len(self._arena):
            larger = np.empty(max(2 * len(self._arena), used + needed_bytes), dtype=np.uint8)
            larger[:used] = self._arena[:used]
            self._arena = larger
