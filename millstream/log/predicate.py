"""Conditions on rows that a read can be given, so that it touches only what may fulfil them.

A condition of the log's own: the columns it names, an order or a set of values, and what joins
them. As in SQL a comparison with null is neither true nor false, and a row is kept where the
whole is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

import pyarrow as pa

from millstream.errors import OptionError

Operator = Literal["==", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column beside one value; a float that is NaN differs from all and is in no order."""

    column: str
    operator: Operator
    value: object


@dataclass(frozen=True, slots=True)
class IsIn:
    """A column that equals one of `values`."""

    column: str
    values: Sequence[object]


@dataclass(frozen=True, slots=True)
class IsNull:
    """A column that is null; true or false, never null."""

    column: str


@dataclass(frozen=True, slots=True)
class And:
    """All of `parts`; of none: true."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of `parts` at least; of none: false."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of null: null."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class Unknown:
    """Any condition on `columns` that only others can evaluate: nothing is known before."""

    columns: frozenset[str] = frozenset()


Predicate: TypeAlias = Comparison | IsIn | IsNull | And | Or | Not | Unknown

Where: TypeAlias = (
    Predicate | tuple[object, ...] | list[object] | pa.compute.Expression  # as they come
)
"""What a read takes: a predicate; `(column, operator, value)`, a list of which must all hold; or
an expression of `pyarrow.compute`."""

_SPELLINGS: Mapping[str, Operator] = {
    "=": "==",
    "<>": "!=",
    **{each: each for each in get_args(Operator)},
}


def where_to_predicate(where: object) -> Predicate:
    """Return the predicate that a user wrote in one of the short forms.

    Raises
    ------
    OptionError
        Where it has none of the forms.

    Examples
    --------
    >>> where_to_predicate([("delay", ">", 60), ("carrier", "in", ["AA", "UA"])])
    And(parts=(Comparison(column='delay', operator='>', value=60), \
IsIn(column='carrier', values=('AA', 'UA'))))
    """
    match where:
        case Comparison() | IsIn() | IsNull() | And() | Or() | Not():
            return where
        case list():
            return And(tuple(where_to_predicate(each) for each in where))
        case (str() as column, str() as word, value):
            return _compared(column, " ".join(word.split()), value)
    message = (
        f"a condition is (column, operator, value), e.g. ('delay', '>', 60), a list of such that "
        f"must all hold, or made of Comparison, IsIn, IsNull, And, Or and Not; got {where!r}"
    )
    raise OptionError(message)


def columns_in(predicate: Predicate) -> frozenset[str]:
    """Return the names of the columns that a predicate reads."""
    match predicate:
        case Comparison(column=name) | IsIn(column=name) | IsNull(column=name):
            return frozenset({name})
        case And(parts=parts) | Or(parts=parts):
            return frozenset[str]().union(*(columns_in(each) for each in parts))
        case Not(part=part):
            return columns_in(part)
        case Unknown(columns=columns):
            return columns


def _compared(column: str, word: str, value: object) -> Predicate:
    if word in _SPELLINGS:
        if value is not None:
            return Comparison(column, _SPELLINGS[word], value)
        if _SPELLINGS[word] in {"==", "!="}:
            message = (
                f"nothing equals null, nor differs from it; write ({column!r}, 'is', None) or "
                f"({column!r}, 'is not', None)"
            )
            raise OptionError(message)
    if word in {"in", "not in"} and isinstance(value, Iterable) and not isinstance(value, str):
        found = IsIn(column, tuple(cast("Iterable[object]", value)))
        return found if word == "in" else Not(found)
    if word in {"is", "is not"} and value is None:
        return IsNull(column) if word == "is" else Not(IsNull(column))
    message = (
        f"({column!r}, {word!r}, {value!r}) is no condition; the operators are "
        f"{', '.join(_SPELLINGS)} with a value, in and not in with a list, is and is not with None"
    )
    raise OptionError(message)
