"""Typed expressions: what the surface binds to a schema and the kernels compute.

Three node types are enough. A `Call` names a function of the table below; its arguments
already have the types that the function wants, since binding inserted the casts.

| function | arguments → type |
|---|---|
| `add subtract multiply` | two numbers of one type → that type; integers wrap |
| `divide` | two float64 → float64; x/0 is ±inf or NaN |
| `floor_divide modulo` | two numbers of one type → that type, sign as in Python; integer x//0, x%0 → null |
| `negate abs` | number → its type |
| `equal not_equal less less_equal greater greater_equal` | two values of one type → bool |
| `and or` | two bools → bool, three-valued (Kleene) |
| `not` | bool → bool |
| `is_null` | anything → bool, never null |
| `case` | bool, T, bool, T, …, T (the otherwise) → T; a null condition is false |
| `coalesce` | T, T, … → T |
| `cast` | anything → its type; a value that does not fit fails the row's batch |
| `is_in` | T (option `values`) → bool |
| `str.length str.upper str.lower str.strip` | string → int64 / string |
| `str.contains str.starts_with str.ends_with` | string (option `pattern`, literal) → bool |
| `str.slice` | string (options `start`, `length`) → string |
| `str.replace` | string (options `pattern`, `replacement`, literal) → string |
| `str.concat` | string, string, … → string, null if any is |
| `dt.year dt.month dt.day dt.hour dt.minute dt.second dt.weekday dt.day_of_year` | timestamp or date → int64; UTC or the type's zone; Monday is 0 |
| `dt.truncate` | timestamp (option `every_us`) → timestamp; floors also before 1970 |
| `timestamp_add timestamp_subtract` | timestamp, duration → timestamp of the same type |
| `timestamp_difference` | timestamp, timestamp → duration("us") |
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the input, by name."""

    name: str
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value in every row; `None` is the typed null."""

    value: object
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the table above applied to arguments.

    `options` holds what is not a column, e.g. `(("pattern", "JFK"),)`.
    """

    function: str
    arguments: tuple[TypedExpression, ...]
    type: pa.DataType
    options: tuple[tuple[str, object], ...] = ()


TypedExpression = Column | Constant | Call


def columns_of(expression: TypedExpression) -> frozenset[str]:
    """Return the names of the columns that `expression` reads."""
    match expression:
        case Column(name=name):
            return frozenset({name})
        case Call(arguments=arguments):
            return frozenset[str]().union(*(columns_of(each) for each in arguments))
        case _:
            return frozenset()


def substitute(
    expression: TypedExpression, replacements: dict[str, TypedExpression]
) -> TypedExpression:
    """Return `expression` with each column named in `replacements` replaced."""
    match expression:
        case Column(name=name):
            return replacements.get(name, expression)
        case Call(function=function, arguments=arguments, type=type_, options=options):
            replaced = tuple(substitute(each, replacements) for each in arguments)
            return Call(function, replaced, type_, options)
        case _:
            return expression
