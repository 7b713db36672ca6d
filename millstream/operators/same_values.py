"""Which values of two columns are the same: nulls and NaN are, and lists go by their items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

BooleanArray = npt.NDArray[np.bool_]


def are_same(one: pa.Array, other: pa.Array) -> BooleanArray:
    """Return for two columns of one type and length n which values are the same, shape (n,)."""
    type_ = one.type
    if pat.is_dictionary(type_):
        return are_same(one.dictionary_decode(), other.dictionary_decode())
    if pat.is_string_view(type_) or pat.is_binary_view(type_):
        return are_same(*(each.cast(pa.large_binary()) for each in (one, other)))
    if pat.is_float16(type_):
        return are_same(*(each.cast(pa.float32()) for each in (one, other)))
    valid, other_valid = _valid(one), _valid(other)
    same: BooleanArray = valid == other_valid
    rows = np.flatnonzero(valid & other_valid)
    if len(rows) < len(same):
        # What lies under a null is arbitrary.
        one, other = one.take(pa.array(rows)), other.take(pa.array(rows))
    if pat.is_struct(type_):
        for index in range(type_.num_fields):
            same[rows] &= are_same(one.field(index), other.field(index))
    elif pat.is_nested(type_):
        same[rows] = _are_same_lists(one, other)
    elif not pat.is_null(type_):
        equal = pc.equal(one, other)
        if pat.is_floating(type_):
            equal = pc.or_(equal, pc.and_(pc.is_nan(one), pc.is_nan(other)))
        same[rows] = equal.to_numpy(zero_copy_only=False)
    return same


def _are_same_lists(one: pa.Array, other: pa.Array) -> BooleanArray:
    """Return which lists or maps, none of which is null, have the same items."""
    (lengths, items), (other_lengths, other_items) = _items(one), _items(other)
    same: BooleanArray = lengths == other_lengths
    places = np.repeat(same, lengths), np.repeat(same, other_lengths)
    alike = are_same(items.filter(pa.array(places[0])), other_items.filter(pa.array(places[1])))
    rows = np.repeat(np.arange(len(same)), np.where(same, lengths, 0))
    same[rows[~alike]] = False
    return same


def _items(lists: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return how many items each list has, and all items."""
    if pat.is_fixed_size_list(lists.type):
        return np.full(len(lists), lists.type.list_size), lists.flatten()
    offsets = np.asarray(lists.offsets).astype(np.int64)
    if pat.is_map(lists.type):
        names = ["key", "value"]
        entries = pa.StructArray.from_arrays([lists.keys, lists.items], names)
        return np.diff(offsets), entries.slice(offsets[0] if len(offsets) else 0, None)
    return np.diff(offsets), lists.flatten()


def _valid(column: pa.Array) -> BooleanArray:
    found: BooleanArray = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return found
