"""The rows of each key in order, of which the first few are its best.

batch ─▶ slots ─▶ may it be among the best? ─▶ words of its order ─▶ blocks of entries ─▶ rows
                  (else it is forgotten at once)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import is_key_type, key_hashes
from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.arrow_buffers import new_values, valid_bytes_of
from millstream.operators.kernels import ordered_rows as kernels
from millstream.operators.key_index import KeyIndex
from millstream.operators.operator import KEY_GROUP_COLUMN, REMOVED_COLUMN
from millstream.operators.retraction import ordered_values
from millstream.operators.row_store import RowStore
from millstream.operators.weights import weights_of

Int64Array = npt.NDArray[np.int64]

_ARENA_FIRST = 256
_SUPERSEDED_MIN = 4096
_CANDIDATES_MAX = 2**20
"""Of so many best rows of keys a batch is told apart before they are looked at in full."""
_EVERY = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class BestChanged:
    """Which rows came among the best of their keys, and which went.

    Parameters
    ----------
    rows
        Those that went or came, of one key together, first what went.
    weights
        -1 or +1 for each.
    ranks
        Of each, from 1 on; empty where they are not asked for.
    """

    rows: list[pa.Array]
    weights: Int64Array
    ranks: Int64Array


class TopRows:
    """Rows by key and order, with what changed since the last snapshot.

    Parameters
    ----------
    schema
        Of the rows.
    key_columns
        Whose best rows are kept; none: of all rows.
    by
        Columns that order rows, the first one first: numbers, times or booleans.
    ascending
        Whether the least value comes first. Nulls come last in any case.
    then
        Columns by which rows that are equal in `by` are ordered, the least first. Of those that
        are still equal, a hash of all columns decides: the same whatever comes first.
    limit
        How many rows of a key are its best.
    ties
        Whether rows that are equal in `by` to the last of the best are of the best, too.
    takes_changes
        Whether a row may be taken back, so that all rows of a key must be known.
    ranked
        Whether a row that has another rank now has changed.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key_columns: Sequence[str],
        by: Sequence[str],
        then: Sequence[str],
        limit: int,
        *,
        ascending: bool,
        ties: bool,
        takes_changes: bool,
        ranked: bool = False,
    ) -> None:
        self._schema = schema
        self._key = tuple(key_columns)
        self._by, self._then = tuple(by), tuple(then)
        self._limit = limit
        self._tied = 2 * len(self._by) if ties else 0
        self._ascending = ascending
        self._takes_changes, self._ranked = takes_changes, ranked
        types = [schema.field(name).type for name in key_columns]
        self._index = KeyIndex(types or [pa.int64()])
        self._rows = RowStore(schema)
        width = 2 * (len(by) + len(then)) + 1
        self._heads = np.zeros((self._index.capacity, 3), dtype=np.int64)
        self._marks = np.zeros(self._index.capacity, dtype=np.uint8)
        self._places = np.full(self._index.capacity, kernels.NONE, dtype=np.int64)
        self._seen: npt.NDArray[Any] = np.zeros(0, dtype=np.int64 if ranked else np.bool_)
        self._arena = np.zeros((_ARENA_FIRST, width + 1), dtype=np.int64)
        self._free = np.full(kernels.SIZES, kernels.NONE, dtype=np.int64)
        self._meta = np.zeros(3, dtype=np.int64)
        self._live = 0
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        arrays = self._heads.nbytes + self._marks.nbytes + self._arena.nbytes
        arrays += self._places.nbytes + self._seen.nbytes
        return arrays + self._index.size_bytes + self._rows.size_bytes

    def change(self, batch: pa.RecordBatch) -> BestChanged | None:
        """Apply rows with their weights; return what changed among the best, `None`: nothing."""
        rows = batch.select(self._schema.names)
        words = self._by_words(rows)
        if not self._takes_changes:
            changed = self._change_facts(rows, words)
        else:
            weights = weights_of(batch)
            if (np.abs(weights) != 1).any():
                again = np.repeat(np.arange(len(weights)), np.abs(weights))
                rows, words = rows.take(pa.array(again)), words[again]
                weights = np.sign(weights)[again]
            slots = self._insert(self._keys_of(rows))
            changed = self._changed(*self._apply(rows, words, weights, slots))
        self._drop_superseded()
        return changed

    def _change_facts(self, rows: pa.RecordBatch, words: Int64Array) -> BestChanged | None:
        """Apply rows of which most, where a key has many, are not among its best."""
        keys = self._keys_of(rows)
        slots = self._index.find(keys)
        missing = slots < 0
        if missing.any():
            new = pa.array(missing)
            slots[missing] = self._insert([each.filter(new) for each in keys])
        candidates = self._candidates(slots, words)
        if not len(candidates):
            return None
        if len(candidates) < len(slots):
            rows, words = rows.take(pa.array(candidates)), words[candidates]
            slots = slots[candidates]
        self._index.mark_changed(slots)
        weights = np.ones(len(slots), dtype=np.int64)
        return self._changed(*self._apply(rows, words, weights, slots))

    def _candidates(self, slots: Int64Array, words: Int64Array) -> Int64Array:
        """Return which rows of a batch may be among the best of their slots when it is in."""
        count = len(slots)
        blocks = min(count, len(self._index), _CANDIDATES_MAX // self._limit)
        room = new_values(blocks * self._limit * words.shape[1], np.int64)
        candidates = new_values(count, np.int64)
        found = kernels.find_candidates(
            slots, words, self._limit, self._heads, self._arena, self._places,
            room.reshape(-1, words.shape[1]), new_values(blocks, np.int64),
            new_values(count, np.int64), candidates,
        )  # fmt: skip
        return candidates[:found]

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether it is the full state, and the rows; see `StateSnapshot`."""
        full = since is None or since != self._last_checkpoint
        slots = self._index.live_slots() if full else self._index.changed_slots()
        numbers, _ = self._numbers(slots, _EVERY)
        parts = [] if full else [self._gone(keys) for keys in self._index.removed_keys()]
        parts.append(self._state_rows(self._rows.take(self._schema.names, numbers), removed=False))
        self.mark_saved(checkpoint)
        return full, pa.concat_tables(parts)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._index.mark_snapshot()
        self._last_checkpoint = checkpoint

    def restore(self, parts: Sequence[pa.Table], groups: range) -> None:
        """Apply the rows of snapshots, oldest first, whose key group is in `groups`."""
        for part in parts:
            group = np.asarray(part.column(KEY_GROUP_COLUMN))
            mine = part.filter(pa.array((group >= groups.start) & (group < groups.stop)))
            removed = np.asarray(mine.column(REMOVED_COLUMN))
            arrays = [mine.column(f"row.{name}").combine_chunks() for name in self._schema.names]
            rows = pa.RecordBatch.from_arrays(arrays, schema=_nullable(self._schema))
            # What a snapshot says of a key replaces what was known of it.
            slots = np.unique(self._index.find(self._keys_of(rows)))
            self._remove(slots[slots >= 0])
            rows = rows.filter(pa.array(~removed))
            self._apply(
                rows,
                self._by_words(rows),
                np.ones(rows.num_rows, dtype=np.int64),
                self._insert(self._keys_of(rows)),
            )

    def _keys_of(self, rows: pa.RecordBatch) -> list[pa.Array]:
        if not self._key:
            return [pa.array(np.zeros(rows.num_rows, dtype=np.int64))]
        return [rows.column(name) for name in self._key]

    def _insert(self, keys: list[pa.Array]) -> Int64Array:
        """Return the slots of keys, which get some where they are new."""
        slots = self._index.insert(keys).of_rows
        self._grow()
        return slots

    def _by_words(self, rows: pa.RecordBatch) -> Int64Array:
        """Return the words of each row by which its key's rows are ordered first."""
        words = new_values(rows.num_rows * 2 * len(self._by), np.int64)
        words = words.reshape(rows.num_rows, 2 * len(self._by))
        for index, name in enumerate(self._by):
            _write_words(rows.column(name), words, 2 * index, ascending=self._ascending)
        return words

    def _all_words(self, rows: pa.RecordBatch, by_words: Int64Array) -> Int64Array:
        """Return all words of each row: those that decide between equals, too."""
        words = np.empty((rows.num_rows, self._arena.shape[1] - 1), dtype=np.int64)
        words[:, : by_words.shape[1]] = by_words
        for index, name in enumerate(self._then, len(self._by)):
            _write_words(rows.column(name), words, 2 * index, ascending=True)
        hashed = [each for each in rows.columns if is_key_type(each.type)]
        if rows.num_rows:
            words[:, -1] = key_hashes(hashed).view(np.int64)
        return words

    def _apply(
        self, rows: pa.RecordBatch, by_words: Int64Array, weights: Int64Array, slots: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Put rows in and out; return the slots that changed, and what was their best before."""
        words = self._all_words(rows, by_words)
        base = len(self._rows)
        self._rows.append(rows)
        touched = new_values(2 * len(slots), np.int64).reshape(-1, 2)
        before = new_values(2 * len(slots), np.int64)
        self._meta[kernels.META_TOUCHED] = self._meta[kernels.META_BEFORE] = 0
        done = 0
        while done < len(slots):
            done = kernels.apply_rows(
                slots, words, weights, done, base, self._limit, self._tied, self._takes_changes,
                self._heads, self._arena, self._free, self._meta, self._marks, touched, before,
            )  # fmt: skip
            if done < 0:
                done = -2 - done
                before = np.concatenate([before, np.empty_like(before)])
            elif done < len(slots):
                larger = np.empty((2 * len(self._arena), self._arena.shape[1]), dtype=np.int64)
                larger[: len(self._arena)] = self._arena
                self._arena = larger
        touched = touched[: self._meta[kernels.META_TOUCHED]]
        self._marks[touched[:, 0]] = 0
        return touched[:, 0].copy(), touched[:, 1], before[: self._meta[kernels.META_BEFORE]]

    def _changed(
        self, slots: Int64Array, counts_before: Int64Array, before: Int64Array
    ) -> BestChanged | None:
        after, counts = self._numbers(slots, self._limit)
        if len(self._seen) < len(self._rows):
            self._seen = np.zeros(2 * len(self._rows), dtype=self._seen.dtype)
        numbers = new_values(len(before) + len(after), np.int64)
        weights = new_values(len(numbers), np.int64)
        ranks = new_values(len(numbers) if self._ranked else 0, np.int64)
        compared = counts_before, before, counts, after, self._seen, numbers, weights
        if self._ranked:
            found = kernels.compare_ranked(*compared, ranks)
        else:
            found = kernels.compare_best(*compared)
        numbers, weights = numbers[:found], weights[:found]
        result = BestChanged(self._rows.take(self._schema.names, numbers), weights, ranks[:found])
        self._remove(slots[counts == 0])
        return result if len(numbers) else None

    def _numbers(self, slots: Int64Array, limit: int) -> tuple[Int64Array, Int64Array]:
        """Return the numbers of the slots' best rows, and how many each has."""
        counts = np.empty(len(slots), dtype=np.int64)
        kernels.count_best(slots, limit, self._tied, self._heads, self._arena, counts)
        numbers = np.empty(int(counts.sum()), dtype=np.int64)
        kernels.gather_numbers(slots, counts, self._heads, self._arena, numbers)
        return numbers, counts

    def _remove(self, slots: Int64Array) -> None:
        kernels.clear_blocks(slots, self._heads, self._arena, self._free)
        self._index.remove(slots)

    def _grow(self) -> None:
        capacity = self._index.capacity
        if len(self._heads) < capacity:
            more = np.zeros((capacity - len(self._heads), 3), dtype=np.int64)
            self._heads = np.concatenate([self._heads, more])
            self._marks = np.zeros(capacity, dtype=np.uint8)
            self._places = np.full(capacity, kernels.NONE, dtype=np.int64)

    def _drop_superseded(self) -> None:
        if len(self._rows) < max(_SUPERSEDED_MIN, 2 * self._live):
            return
        slots = self._index.live_slots()
        is_live = np.zeros(len(self._rows), dtype=np.bool_)
        is_live[self._numbers(slots, _EVERY)[0]] = True
        numbers = np.flatnonzero(is_live)
        self._live = len(numbers)
        if len(self._rows) < 2 * self._live:
            return
        places = np.zeros(len(self._rows), dtype=np.int64)
        places[numbers] = np.arange(len(numbers))
        self._rows.keep(numbers)
        kernels.write_numbers(slots, self._heads, self._arena, places)

    def _gone(self, keys: list[pa.Array]) -> pa.Table:
        """Return keys that are gone as a snapshot holds them: nulls beside the keys."""
        of_key = dict(zip(self._key, keys, strict=True)) if self._key else {}
        arrays = [
            of_key[field.name] if field.name in of_key else pa.nulls(len(keys[0]), field.type)
            for field in self._schema
        ]
        return self._state_rows(arrays, removed=True)

    def _state_rows(self, arrays: list[pa.Array], *, removed: bool) -> pa.Table:
        count = len(arrays[0])
        keys = [arrays[self._schema.get_field_index(name)] for name in self._key]
        groups = key_groups_of(keys) if keys and count else np.zeros(count, dtype=np.int32)
        columns: dict[str, pa.Array] = {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(count, removed)),
        }
        for name, array in zip(self._schema.names, arrays, strict=True):
            columns[f"row.{name}"] = array
        return pa.table(columns)


def _write_words(column: pa.Array, words: Int64Array, first: int, *, ascending: bool) -> None:
    """Write two words that order the values: whether it is null, which is last, and the value."""
    values = ordered_values(column)
    words[:, first] = 0
    words[:, first + 1] = values if ascending else ~values
    if column.null_count:
        null = ~valid_bytes_of(column)
        words[null, first], words[null, first + 1] = 1, 0


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema(each.with_nullable(True) for each in schema)
