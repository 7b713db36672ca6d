"""The nodes behind the verbs that keep something of each key: `agg`, `top`, `dedup`, `to`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.dsl.binding import Scope
from millstream.dsl.conditions import hash as hash_of
from millstream.dsl.expressions import Expression, col, lit
from millstream.dsl.functions import Aggregate
from millstream.dsl.selection import named_outputs
from millstream.dsl.topics import check_table_sink
from millstream.dsl.windows import duration_option
from millstream.errors import PlanError, UnboundedStateWarning
from millstream.log.key_hash import is_key_type
from millstream.operators.expression import TypedExpression
from millstream.operators.operator import ChangeMode
from millstream.plan import nodes
from millstream.plan.aggregates import AggregateColumn
from millstream.plan.changes import is_told_apart
from millstream.plan.columns import identity_outputs

if TYPE_CHECKING:
    from millstream.log import Log

_SAMPLE_PARTS = 2**32


def bound_aggregates(
    aggregates: Mapping[str, Aggregate], schema: pa.Schema, location: str
) -> tuple[AggregateColumn, ...]:
    """Return the result columns that keywords of `agg` ask for, over rows of `schema`.

    Raises
    ------
    PlanError
        When there are none, or one is no aggregate.
    """
    scope = Scope(schema)
    columns = []
    for name, each in aggregates.items():
        if not isinstance(each, Aggregate):
            message = (
                f"{location}: agg takes aggregates such as ms.count() or ms.mean(…); "
                f"{name}={each!r} is none"
            )
            raise PlanError(message)
        columns.append(each.bound(name, scope))
    if not columns:
        message = f"{location}: agg computes nothing; write e.g. agg(rows=ms.count())"
        raise PlanError(message)
    return tuple(columns)


def running_aggregate(
    node: nodes.Node,
    ttl: str | timedelta | None,
    aggregates: Mapping[str, Aggregate],
    location: str,
) -> nodes.GroupAggregate:
    """Return the aggregates of all rows of `node` so far; warn where keys are kept for ever."""
    columns = bound_aggregates(aggregates, node.schema, location)
    keys = nodes.grouping_keys(node)
    ttl_us = None
    if ttl is not None and ttl != "never":
        ttl_us = duration_option("ttl", ttl, location)
    made = nodes.GroupAggregate(node, keys, columns, ttl_us, location=location)
    if ttl is None and keys and not made.takes_changes:
        warn_unbounded(
            location,
            f"the aggregate keeps a row for every {', '.join(keys)} that ever comes",
            'forget keys with ttl="7d", use windows, or say ttl="never"',
        )
    return made


def best_rows(
    node: nodes.Node,
    count: int,
    by: str | Expression | Sequence[str | Expression],
    ascending: bool,
    ties: bool,
    rank: str | None,
    location: str,
) -> nodes.Node:
    """Return the best rows of each key of `node`; what they are ordered by is computed before."""
    if type(count) is not int or count < 1:
        message = f"{location}: top keeps a number of rows, at least 1; got {count!r}"
        raise PlanError(message)
    given = [by] if isinstance(by, str | Expression) else list(by)
    columns: dict[str, TypedExpression] = {}
    for index, each in enumerate(given):
        ((name, bound),) = named_outputs(node.schema, [_as_column(each, index)], {}, location)
        columns[name] = bound
    if not columns:
        message = f"{location}: top needs columns that order rows, e.g. top({count}, by=…)"
        raise PlanError(message)
    present = dict(identity_outputs(node.schema))
    ordered = node
    if not columns.items() <= present.items():
        ordered = nodes.Project(node, tuple((present | columns).items()), location=location)
    keys = nodes.grouping_keys(node)
    by_columns = tuple(columns)
    best = nodes.Top(ordered, keys, count, by_columns, ascending, ties, rank, location=location)
    if ordered is node:
        return best
    kept = {*present} | {rank}
    outputs = tuple(each for each in identity_outputs(best.schema) if each[0] in kept)
    return nodes.Project(best, outputs, location=location)


def first_rows(
    node: nodes.Node, keys: Sequence[str], within: str | timedelta | None, location: str
) -> nodes.Dedup:
    """Return the first row of each key; warn where every key is remembered."""
    columns = tuple(keys) or node.keys
    if not columns:
        message = f"{location}: dedup needs a key, e.g. dedup({node.schema.names[0]!r})"
        raise PlanError(message)
    within_us = None
    if within is not None and within != "ever":
        within_us = duration_option("within", within, location)
    made = nodes.Dedup(node, columns, within_us, location=location)
    if within is None:
        warn_unbounded(
            location,
            f"dedup remembers every {', '.join(columns)} that ever comes",
            'forget keys with within="1d", or say within="ever"',
        )
    return made


def upserts(
    node: nodes.Node, log: Log, topic: str, location: str
) -> tuple[nodes.Node, tuple[str, ...]]:
    """Return the rows of `node` as upserts, and the key of the table `topic` that they are of.

    Raises
    ------
    PlanError
        When nothing tells the rows apart, or the topic is no table or has another key.
    """
    keys = node.keys
    what = f'mode="upsert" into {topic!r}'
    if node.mode is not ChangeMode.APPEND and not is_told_apart(node.unique, keys):
        keys = node.unique or ()
    if not keys and node.mode is not ChangeMode.APPEND and node.unique != ():
        nodes.require_unique(node, (), location, what)
    if not keys:
        message = (
            f"{location}: {what} needs a key; name it with .key_by(…) before, e.g. a "
            'constant: .with_columns(all=lit("all")).key_by("all")'
        )
        raise PlanError(message)
    keys = check_table_sink(log, topic, keys, location)
    if node.mode is ChangeMode.APPEND:
        node = nodes.AsTable(node, keys, location=location)
    return node, keys


def is_sampled(schema: pa.Schema, fraction: float, seed: int, location: str) -> Expression:
    """Return whether a row is among the `fraction` that a hash of its columns chooses."""
    columns = [col(each.name) for each in schema if is_key_type(each.type)]
    if not columns:
        message = (
            f"{location}: sample chooses by columns that are no lists or structs; here are none"
        )
        raise PlanError(message)
    return hash_of(*columns, lit(seed)) % _SAMPLE_PARTS < round(fraction * _SAMPLE_PARTS)


def warn_unbounded(location: str, what: str, remedy: str) -> None:
    """Warn that an operator keeps something of every key."""
    message = f"{location}: {what}, so its state may grow without bound; {remedy}"
    # Python gives a warning of one text once.
    warnings.warn(message, UnboundedStateWarning, stacklevel=4)


def _as_column(by: str | Expression, index: int) -> str | Expression:
    """Return what rows are ordered by under a name of its own, where it is computed."""
    if isinstance(by, str) or by.function == "column":
        return by
    return by.alias(f"__by_{index}")
