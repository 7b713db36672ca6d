"""Functions of lists, structs and maps. A null list gives null; sums leave out nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.operators.expression import Call
from millstream.operators.functions.function import Function, as_array, option


def plain_list(array: pa.Array) -> pa.Array:
    """Return a list array of any layout as one with 64-bit offsets."""
    target = pa.large_list(array.type.value_type)
    return array if array.type.equals(target) else array.cast(target)


class Lists:
    """The lists of a column: where each begins and ends in one array of all items."""

    def __init__(self, array: pa.Array) -> None:
        array = plain_list(array)
        self.count = len(array)
        self.items: pa.Array = array.values
        offsets = np.asarray(array.offsets)
        self.starts, self.ends = offsets[:-1], offsets[1:]
        self.null = pc.is_null(array).to_numpy(zero_copy_only=False)
        # What lies under a null list is arbitrary.
        self.sizes = np.where(self.null, 0, self.ends - self.starts)

    def parents(self) -> Any:
        """Return the row of each item, and the item's place among all."""
        rows = np.repeat(np.arange(self.count), self.sizes)
        first = np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        places = np.arange(len(rows)) - first + np.repeat(self.starts, self.sizes)
        return rows, places

    def chosen(self, rows: Any, places: Any, type_: pa.DataType) -> pa.Array:
        """Return lists of the items at `places`, which belong to ascending `rows`."""
        sizes = np.bincount(rows, minlength=self.count)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        items = self.items.take(pa.array(places, pa.int64()))
        mask = pa.array(self.null) if self.null.any() else None
        made = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items, mask=mask)
        return made.cast(type_)

    def spread(self, rows: Any, results: pa.Array, empty: pa.Scalar) -> pa.Array:
        """Return `results` of `rows`, `empty` for lists without any, null for nulls."""
        place = np.full(self.count, -1)
        place[rows] = np.arange(len(rows))
        found = results.take(pa.array(place, pa.int64(), mask=place < 0))
        missing = pa.array((place < 0) & ~self.null)
        return pc.if_else(missing, empty, found)


def _length(values: list[Any], call: Call) -> Any:
    return pc.list_value_length(values[0]).cast(pa.int64())


def _get(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    index = np.asarray(pc.fill_null(as_array(values[1], lists.count), 2**40))
    places = np.where(index < 0, index + lists.sizes, index)
    outside = (places < 0) | (places >= lists.sizes)
    places = pa.array(np.where(outside, 0, places + lists.starts), mask=outside)
    return lists.items.take(places)


def _contains(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    rows, places = lists.parents()
    wanted = as_array(values[1], lists.count)
    items = lists.items.take(pa.array(places, pa.int64()))
    same = pc.equal(items, wanted.take(pa.array(rows, pa.int64())))
    hits = np.asarray(pc.fill_null(same, False))
    found = np.zeros(lists.count, dtype=bool)
    found[rows[hits]] = True
    missing = lists.null | pc.is_null(wanted).to_numpy(zero_copy_only=False)
    return pa.array(found, mask=missing)


def _aggregate(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    rows, places = lists.parents()
    items = lists.items.take(pa.array(places, pa.int64()))
    name = call.function.removeprefix("list.")
    if pat.is_boolean(items.type):
        items = items.cast(pa.int64())
    if name == "sum":
        items = items.cast(call.type)
    grouped = (
        pa.table({"row": pa.array(rows), "item": items})
        .group_by("row", use_threads=False)
        .aggregate([("item", name)])
    )
    results = grouped.column(f"item_{name}").combine_chunks().cast(call.type)
    empty = pa.scalar(0).cast(call.type) if name == "sum" else pa.scalar(None, call.type)
    if name == "sum":
        results = pc.coalesce(results, empty)
    return lists.spread(np.asarray(grouped.column("row")), results, empty)


def _join(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    rows, places = lists.parents()
    there = np.asarray(lists.items.take(pa.array(places, pa.int64())).is_valid())
    type_ = pa.large_list(lists.items.type)
    kept = lists.chosen(rows[there], places[there], type_)
    return pc.binary_join(kept, option(call, "separator")).cast(call.type)


def _unique(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    rows, places = lists.parents()
    items = lists.items.take(pa.array(places, pa.int64()))
    if pat.is_floating(items.type):
        items = pc.add(items, pa.scalar(0.0, items.type))  # a zero is a positive one
    table = pa.table({"row": pa.array(rows), "item": items, "place": pa.array(places)})
    first = table.group_by(["row", "item"], use_threads=False).aggregate([("place", "min")])
    kept = np.sort(np.asarray(first.column("place_min")))
    return lists.chosen(_rows_at(rows, places, kept), kept, call.type)


def _rows_at(rows: Any, places: Any, kept: Any) -> Any:
    # Rows and places ascend together.
    return rows[np.searchsorted(places, kept)]


def _sort(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    rows, places = lists.parents()
    items = lists.items.take(pa.array(places, pa.int64()))
    order = pc.sort_indices(
        pa.table({"row": pa.array(rows), "null": items.is_null(), "item": items}),
        sort_keys=[
            ("row", "ascending"),
            ("null", "ascending" if option(call, "nulls_last") else "descending"),
            ("item", "descending" if option(call, "descending") else "ascending"),
        ],
    )
    chosen = np.asarray(order)
    return lists.chosen(rows[chosen], places[chosen], call.type)


def _reverse(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    rows, places = lists.parents()
    mirrored = np.repeat(lists.starts + lists.ends - 1, lists.sizes) - places
    return lists.chosen(rows, mirrored, call.type)


def _slice(values: list[Any], call: Call) -> Any:
    lists = Lists(values[0])
    start, length = option(call, "start"), option(call, "length")
    rows, places = lists.parents()
    index = places - np.repeat(lists.starts, lists.sizes)
    size = np.repeat(lists.sizes, lists.sizes)
    first = np.full(len(index), start) if start >= 0 else size + start
    kept = index >= first
    if length is not None:
        kept &= index < first + length
    return lists.chosen(rows[kept], places[kept], call.type)


def _field(values: list[Any], call: Call) -> Any:
    return pc.struct_field(values[0], option(call, "name"))


def _map_get(values: list[Any], call: Call) -> Any:
    key = pa.scalar(option(call, "key"), values[0].type.key_type)
    return pc.map_lookup(values[0], key, "last")


def _map_part(values: list[Any], call: Call) -> Any:
    array = values[0]
    offsets = np.asarray(array.offsets)
    items = array.keys if call.function == "map.keys" else array.items
    mask = pc.is_null(array) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=mask)


def _map_length(values: list[Any], call: Call) -> Any:
    array = values[0]
    sizes = np.diff(np.asarray(array.offsets)).astype(np.int64)
    return pa.array(sizes, mask=pc.is_null(array).to_numpy(zero_copy_only=False))


def _struct(values: list[Any], call: Call) -> Any:
    count = max(len(each) for each in values if isinstance(each, pa.Array))
    arrays = [as_array(each, count) for each in values]
    return pa.StructArray.from_arrays(arrays, fields=list(call.type))


FUNCTIONS: dict[str, Function] = {
    "list.len": _length,
    "list.get": _get,
    "list.contains": _contains,
    "list.sum": _aggregate,
    "list.min": _aggregate,
    "list.max": _aggregate,
    "list.mean": _aggregate,
    "list.join": _join,
    "list.unique": _unique,
    "list.sort": _sort,
    "list.reverse": _reverse,
    "list.slice": _slice,
    "struct.field": _field,
    "struct.of": _struct,
    "map.get": _map_get,
    "map.keys": _map_part,
    "map.values": _map_part,
    "map.len": _map_length,
}
