"""Checks and computations on the columns of plan nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError, PlanError, UnknownColumnError, nearest
from millstream.operators.expression import Column, TypedExpression

EVENT_TIME = pa.timestamp("us", "UTC")
"""The type of every time column; a source casts what a topic holds to it."""

RESERVED_COLUMNS = frozenset(
    {"_timestamp", "_headers", "_op", "_offset", "_stamp", "_weight", "_key_group", "_removed"}
)
"""Names that the platform gives to columns of its own."""

Outputs: TypeAlias = tuple[tuple[str, TypedExpression], ...]
"""Result columns and what they are computed by, in order."""


def identity_outputs(schema: pa.Schema) -> Outputs:
    """Return the outputs of a projection that changes nothing."""
    return tuple((each.name, Column(each.name, each.type)) for each in schema)


def require_column(schema: pa.Schema, name: str, location: str, of: str = "") -> pa.Field:
    """Return the field `name`; `of` says of what, e.g. `" of table 'planes'"`.

    Raises
    ------
    UnknownColumnError
        When there is none; lists the nearest names.
    """
    index = schema.get_field_index(name)
    if index < 0:
        message = f"{location}: no column {name!r}{of}{nearest(name, schema.names)}"
        raise UnknownColumnError(message)
    return schema.field(index)


def check_names(names: Sequence[str], location: str) -> None:
    """Raise `PlanError` when a column name is used twice, reserved or empty."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            message = f"{location}: two columns would be called {name!r}; give one another name"
            raise PlanError(message)
        if name in RESERVED_COLUMNS or not name:
            message = f"{location}: a column cannot be called {name!r}, which the platform uses"
            raise PlanError(message)
        seen.add(name)


def check_same_columns(first: pa.Schema, other: pa.Schema, location: str) -> None:
    """Raise `ExpressionTypeError` when two streams cannot be one: names what differs."""
    for name in [*first.names, *(each for each in other.names if each not in first.names)]:
        left, right = first.get_field_index(name), other.get_field_index(name)
        types = [
            schema.field(i).type if i >= 0 else None
            for schema, i in ((first, left), (other, right))
        ]
        if types[0] is None or types[1] is None or not types[0].equals(types[1]):
            one, two = ("missing" if each is None else str(each) for each in types)
            message = (
                f"{location}: the streams of a union need the same columns; {name!r} is {one} in "
                f"the first and {two} in the other; use select, rename or cast before"
            )
            raise ExpressionTypeError(message)


def projected(
    keys: tuple[str, ...],
    time_column: str | None,
    unique: tuple[str, ...] | None,
    outputs: Outputs,
    location: str,
) -> tuple[pa.Schema, tuple[str, ...], str | None, tuple[str, ...] | None]:
    """Return schema, keys, time column and unique columns of a projection of rows with those.

    They follow a column under its new name; a key that is left out ends them all.

    Raises
    ------
    PlanError
        When no column is left, or names collide.
    ExpressionTypeError
        When a column has no type, being None in every row.
    """
    if not outputs:
        message = f"{location}: no column would be left; keep at least one"
        raise PlanError(message)
    check_names([name for name, _ in outputs], location)
    fields = []
    renamed: dict[str, str] = {}
    for name, expression in outputs:
        if pat.is_null(expression.type):
            message = f"{location}: {name!r} is None in every row; give a type: lit(None).cast(…)"
            raise ExpressionTypeError(message)
        # Where a column goes out twice, its own name stays the key's and the time's.
        if isinstance(expression, Column) and (
            expression.name not in renamed or name == expression.name
        ):
            renamed[expression.name] = name
        fields.append(pa.field(name, expression.type))
    kept = tuple(renamed.get(each, "") for each in keys)
    told = None if unique is None else tuple(renamed.get(each, "") for each in unique)
    return (
        pa.schema(fields),
        kept if all(kept) else (),
        renamed.get(time_column or ""),
        told if told is None or all(told) else None,
    )
