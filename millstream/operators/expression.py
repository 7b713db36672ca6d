"""Typed expressions: what the surface binds to a schema and the kernels compute.

Three node types are enough. A `Call` names a function of the table below; its arguments
already have the types that the function wants, since binding inserted the casts.

| function | arguments → type |
|---|---|
| `add subtract multiply` | two numbers of one type → that type; integers wrap |
| `divide` | two float64 → float64; x/0 is ±inf or NaN |
| `floor_divide modulo` | two numbers of one type → that type, sign as in Python; integer x//0, x%0 → null |
| the six above | two decimals → a decimal, rounded; what does not fit fails its row; x/0 → null |
| `negate abs sign` | number, decimal, duration → its type |
| `floor ceil round` (option `places`) | float, decimal → its type |
| `sqrt exp log power` | float64 → float64 |
| `is_nan is_finite` | float → bool |
| `equal not_equal less less_equal greater greater_equal` | two values of one type → bool |
| `and or` | two bools → bool, three-valued (Kleene) |
| `not` | bool → bool |
| `is_null` | anything → bool, never null |
| `case` | bool, T, bool, T, …, T (the otherwise) → T; a null condition is false; a branch that may fail is computed only for rows that take it |
| `coalesce least greatest` | T, T, … → T; nulls are left out |
| `cast` (option `strict`) | anything → its type; a value that does not fit fails its row, or is null |
| `is_in` | T (option `values`) → bool |
| `hash` | keys → uint64, the hash of FORMAT.md |
| `random` | int64, a place (option `seed`) → float64 in [0, 1) |
| `str.…` | string → string, bool, int64, a list of strings; options say how |
| `str.split_part` | string (options `pattern`, `number`) → string; a part that is not there is null |
| `str.choose` | int8, T, T, … → T: the text of that number, from 0; never null by itself |
| `str.concat` | string, string, … → string, null if any is; bytes likewise |
| `str.strptime` | string (options `format`, `strict`) → timestamp, date |
| `str.json` | string (options `steps`, `strict`) → any type |
| `dt.…` | timestamp or date → int64, bool, text or its own type; in the type's zone; Monday is 0 |
| `dt.total` | duration (option `unit_ns`) → int64 |
| `list.…` | list → item, list, int64, bool |
| `struct.field struct.of` | struct (option `name`) → field; T, U, … → struct |
| `map.get map.keys map.values map.len` | map → value, list, int64 |
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
