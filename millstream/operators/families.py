"""Which aggregates are fixed fields of a slot and which need a store, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.aggregate import Aggregate, AggregateFunction
from millstream.operators.arrow_buffers import storage_dtype

if TYPE_CHECKING:
    from millstream.operators.stores import Store

_STORED = frozenset(
    {
        "count_distinct",
        "approx_count_distinct",
        "quantile",
        "first",
        "last",
        "arg_min",
        "arg_max",
        "collect_list",
        "collect_set",
        "top_k",
        "user",
    }
)


def is_stored(aggregate: Aggregate, schema: pa.Schema) -> bool:
    """Return `True` iff an aggregate needs more than fixed fields."""
    if aggregate.argument is None:
        return False
    return needs_store(aggregate.function, schema.field(aggregate.argument).type)


def needs_store(function: AggregateFunction, type_: pa.DataType) -> bool:
    """Return `True` iff a function over values of `type_` needs more than fixed fields."""
    if function in {"min", "max"}:
        return storage_dtype(type_) is None and not pat.is_boolean(type_)
    return function in _STORED


def stores_of(
    aggregates: Sequence[Aggregate],
    schema: pa.Schema,
    time_column: str | None,
    *,
    takes_changes: bool = False,
) -> tuple[list[Store], list[Store]]:
    """Return the empty stores that aggregates need, and for each aggregate its own.

    Parameters
    ----------
    aggregates
        Such as need a store.
    schema, time_column, takes_changes
        As for `SlotStores`.
    """
    found: dict[tuple[object, ...], Store] = {}
    own = []
    for each in aggregates:
        key = _retracting_key(each) if takes_changes else _key(each)
        if key not in found:
            make = _retracting_store if takes_changes else _store
            found[key] = make(each, schema, time_column)
        own.append(found[key])
    return list(found.values()), own


def kept_fields(aggregates: Sequence[Aggregate], schema: pa.Schema) -> list[pa.Field]:
    """Return the columns in which `SlotAggregates.taken` gives what is kept of slots."""
    from millstream.operators.accumulator import accumulators_of

    fixed = [each for each in aggregates if not is_stored(each, schema)]
    width = sum(each.width for each in accumulators_of(fixed, schema)[0])
    fields = [pa.field(f"__field_{index}", pa.int64()) for index in range(width)]
    return [*fields, *stored_fields(aggregates, schema)]


def stored_fields(
    aggregates: Sequence[Aggregate], schema: pa.Schema, *, takes_changes: bool = False
) -> list[pa.Field]:
    """Return the columns in which `SlotStores.take` gives what is kept of slots."""
    stored = [each for each in aggregates if is_stored(each, schema)]
    stores, _ = stores_of(stored, schema, None, takes_changes=takes_changes)
    return [field.with_name(f"__{field.name}") for each in stores for field in each.fields]


def _key(aggregate: Aggregate) -> tuple[object, ...]:
    """Return what is the same for aggregates that share a store."""
    match aggregate.function:
        case "count_distinct" | "collect_set":
            return "values", aggregate.argument
        case "quantile":
            return "quantile", aggregate.argument, aggregate.accuracy
        case "top_k":
            return "top_k", aggregate.argument, aggregate.parameter
        case "user":
            return "user", aggregate.name
        case function:
            return function, aggregate.argument, aggregate.by


def _store(aggregate: Aggregate, schema: pa.Schema, time_column: str | None) -> Store:
    """Return the empty store that an aggregate of facts needs."""
    # Imported here, so that a job can be planned and explained without Numba.
    from millstream.operators.best_store import BestStore
    from millstream.operators.list_store import ListStore
    from millstream.operators.set_store import SetStore, has_sets
    from millstream.operators.sketches import DistinctSketch, QuantileSketch
    from millstream.operators.user_store import UserStore
    from millstream.operators.value_store import TopStore, ValueStore

    argument = aggregate.argument
    assert argument is not None
    type_ = schema.field(argument).type
    match aggregate.function:
        case "count_distinct" | "collect_set":
            return SetStore(argument, type_) if has_sets(type_) else ValueStore(argument, type_)
        case "approx_count_distinct":
            return DistinctSketch(argument)
        case "quantile":
            return QuantileSketch(argument, aggregate.accuracy)
        case "top_k":
            return TopStore(argument, type_, int(aggregate.parameter or 0))
        case "collect_list":
            return ListStore(argument, type_, time_column)
        case "user":
            return UserStore(aggregate)
        case _:
            return BestStore(aggregate, schema, time_column)


def _retracting_key(aggregate: Aggregate) -> tuple[object, ...]:
    """Return what is the same for aggregates of changes that share a store."""
    match aggregate.function:
        case "quantile" | "approx_count_distinct":
            return _key(aggregate)
        case "first" | "last" | "collect_list" | "arg_min" | "arg_max":
            return "order", aggregate.argument, aggregate.by
        case "user" if aggregate.user is not None and aggregate.user.retract is not None:
            return _key(aggregate)
        case _:
            return "values", aggregate.argument


def _retracting_store(aggregate: Aggregate, schema: pa.Schema, time_column: str | None) -> Store:
    """Return the empty store that an aggregate of changes needs."""
    from millstream.operators.user_store import RetractingUserStore
    from millstream.operators.weighted_stores import (
        BucketWeights,
        HashWeights,
        OrderWeights,
        ValueWeights,
    )

    argument = aggregate.argument
    assert argument is not None
    kind, *_ = _retracting_key(aggregate)
    match kind:
        case "quantile":
            return BucketWeights(argument, aggregate.accuracy)
        case "approx_count_distinct":
            return HashWeights(argument)
        case "order":
            return OrderWeights(argument, aggregate.by, schema, time_column)
        case "user":
            return RetractingUserStore(aggregate)
        case _:
            return ValueWeights([argument], f"{argument}.held", [schema.field(argument).type])
