"""An expression of `pyarrow.compute` as a predicate, as far as the log knows what it says.

Arrow shows nothing of an expression but its serialised form: an Arrow IPC file whose one row
holds the literals, and whose schema's metadata holds the expression in prefix order, e.g.

    call: greater │ field_ref: delay │ literal: 0 │ end: greater

That form is read back by the same version that wrote it. What is not known there is `Unknown`:
it costs the skipping, never a row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.flatbuffer import schema_metadata
from millstream.log.metadata import PREFIX_SIZE
from millstream.log.predicate import (
    And,
    Comparison,
    IsIn,
    IsNull,
    Not,
    Operator,
    Or,
    Predicate,
    Unknown,
    columns_in,
)

_FILE_START = 8  # "ARROW1" and two zeros, before the schema message
_OPERATORS: dict[str, Operator] = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_MIRRORED: dict[Operator, Operator] = {
    "==": "==",
    "!=": "!=",
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
}


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str


_Part: TypeAlias = Predicate | _Reference | Any  # a literal is a pyarrow.Scalar


def expression_to_predicate(expression: pc.Expression, names: Sequence[str]) -> Predicate:
    """Return what `expression` says; where nothing is known of it, `Unknown` of all `names`."""
    everything = Unknown(frozenset(names))
    try:
        content: pa.Buffer = expression.__reduce__()[1][0]
        view = memoryview(content)[_FILE_START + PREFIX_SIZE :]
        tokens = iter(schema_metadata(view))
        literals = pa.ipc.open_file(content).get_batch(0)
        found = _parsed(tokens, next(tokens), literals, everything)
    except (AttributeError, IndexError, KeyError, ValueError, StopIteration, struct.error):
        return everything  # another version's form
    return _as_predicate(found)


def _parsed(
    tokens: Iterator[tuple[str, str]],
    token: tuple[str, str],
    literals: pa.RecordBatch,
    everything: Unknown,
) -> _Part:
    kind, value = token
    match kind:
        case "field_ref":
            return _Reference(value)
        case "literal":
            return literals.column(int(value))[0]
        case "nested_field_ref":
            path = [next(tokens)[1] for _ in range(int(value))]
            return Unknown(frozenset(path[:1]))
        case "call":
            parts: list[_Part] = []
            options: pa.StructScalar | None = None
            while (following := next(tokens))[0] != "end":
                if following[0] == "options":
                    options = literals.column(int(following[1]))[0]
                else:
                    parts.append(_parsed(tokens, following, literals, everything))
            return _called(value, parts, options)
        case _:
            return everything


def _called(name: str, parts: list[_Part], options: pa.StructScalar | None) -> Predicate:
    match name, parts:
        case _, [_Reference(name=column), pa.Scalar() as value] if name in _OPERATORS:
            return Comparison(column, _OPERATORS[name], value)
        case _, [pa.Scalar() as value, _Reference(name=column)] if name in _OPERATORS:
            return Comparison(column, _MIRRORED[_OPERATORS[name]], value)
        case "and_kleene", _:
            return And(tuple(_as_predicate(each) for each in parts))
        case "or_kleene", _:
            return Or(tuple(_as_predicate(each) for each in parts))
        case "invert", [part]:
            return Not(_as_predicate(part))
        case "is_null", [_Reference(name=column)] if options and not options["nan_is_null"].as_py():
            return IsNull(column)
        case "is_valid", [_Reference(name=column)]:
            return Not(IsNull(column))
        case "is_in", [_Reference(name=column)] if options:
            values = options["value_set"].values
            if not _holds_null_or_nan(values):
                # False for null, where `IsIn` is null.
                return And((IsIn(column, values), Not(IsNull(column))))
        case (
            "if_else",
            [Not(part=IsNull(column=column)), And(parts=(IsIn() as found, _)), pa.Scalar() as null],
        ) if found.column == column and not null.is_valid:
            return found  # how DuckDB writes `in`: null for null
    return Unknown(frozenset[str]().union(*(columns_in(_as_predicate(each)) for each in parts)))


def _as_predicate(part: _Part) -> Predicate:
    match part:
        case _Reference(name=name):
            return Comparison(name, "==", pa.scalar(True))
        case pa.Scalar():
            return Unknown()
        case _:
            return part


def _holds_null_or_nan(values: pa.Array) -> bool:
    if values.null_count:
        return True
    return pa.types.is_floating(values.type) and bool(pc.any(pc.is_nan(values)).as_py())
