"""A predicate bound to the columns of a topic: checked, typed, and evaluated on rows.

Bounds of many rows are compared by the same kernels with the same values as the rows are
(`millstream.log.refusal`), so that both always agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import ExpressionTypeError, OptionError, UnknownColumnError, nearest
from millstream.log.arrow_predicate import expression_to_predicate
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
    where_to_predicate,
)

KERNELS: dict[Operator, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must fulfil; made by `bind`.

    Attributes
    ----------
    predicate
        All of it, as far as it is known, over columns that are there and with values that are
        `pyarrow.Scalar`s.
    evaluated
        What is evaluated on rows: the predicate, or what of it stands beside `expression`.
    expression
        What Arrow evaluates, where something in it is not known.
    """

    predicate: Predicate
    evaluated: Predicate
    expression: pc.Expression | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, sorted."""
        return tuple(sorted(columns_in(self.predicate)))

    def also(self, other: Condition) -> Condition:
        """Return the condition that this one and `other`, without an expression, both hold."""
        assert other.expression is None, other
        return Condition(
            And((self.predicate, other.predicate)),
            And((self.evaluated, other.evaluated)),
            self.expression,
        )

    def mask(self, rows: pa.RecordBatch) -> pa.BooleanArray:
        """Return for each row whether it is kept: true; false and null are dropped.

        Raises
        ------
        ExpressionTypeError
            Where a value cannot be compared, e.g. a time beyond what its unit can hold.
        """
        try:
            mask = _mask(self.evaluated, rows)
            if self.expression is not None:
                mask = pc.and_kleene(mask, _mask_of(self.expression, rows))
        except pa.ArrowInvalid as error:
            message = f"the condition on {', '.join(self.columns)} cannot be evaluated: {error}"
            raise ExpressionTypeError(message) from error
        return mask


def bind(where: object, schema: pa.Schema, topic: str) -> Condition:
    """Return `where`, in any of its forms, bound to the columns of `topic`.

    Raises
    ------
    UnknownColumnError
        Where it names a column that `schema` does not have.
    ExpressionTypeError
        Where a value cannot be compared with its column.
    OptionError
        Where it has none of the forms.
    """
    if isinstance(where, Condition):
        return where
    if not isinstance(where, pc.Expression):
        predicate = bound(where_to_predicate(where), schema, topic)
        return Condition(predicate, predicate)
    predicate = expression_to_predicate(where, schema.names)
    for name in columns_in(predicate):
        _field(name, schema, topic)
    try:
        schema.empty_table().filter(where)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        message = f"the condition {where} does not fit topic {topic!r}: {error}"
        raise ExpressionTypeError(message) from error
    if is_known(predicate):
        return Condition(predicate, predicate)
    return Condition(predicate, And(()), where)


def bound(predicate: Predicate, schema: pa.Schema, topic: str) -> Predicate:
    """Return the predicate with its columns checked and its values as scalars; see `bind`."""
    match predicate:
        case Comparison(column=name, operator=operator, value=value):
            return _comparison(_field(name, schema, topic), operator, value, topic)
        case IsIn(column=name, values=values):
            return _is_in(_field(name, schema, topic), values, topic)
        case IsNull(column=name):
            _field(name, schema, topic)
            return predicate
        case And(parts=parts):
            return And(tuple(bound(each, schema, topic) for each in parts))
        case Or(parts=parts):
            return Or(tuple(bound(each, schema, topic) for each in parts))
        case Not(part=part):
            return Not(bound(part, schema, topic))
        case Unknown():
            return predicate


def _field(name: str, schema: pa.Schema, topic: str) -> pa.Field:
    index = schema.get_field_index(name)
    if index < 0:
        message = (
            f"topic {topic!r} has no column {name!r} for a condition{nearest(name, schema.names)}"
        )
        raise UnknownColumnError(message)
    return schema.field(index)


def _comparison(field: pa.Field, operator: Operator, value: object, topic: str) -> Comparison:
    if _is_beyond(value, field.type):
        # No integer of the type is that small or great: its own bound says the same.
        least, greatest = _range(field.type)
        is_above = cast("int", value) > greatest
        is_true = operator in ({"<", "<=", "!="} if is_above else {">", ">=", "!="})
        if is_above:
            operator, value = ("<=" if is_true else ">"), greatest
        else:
            operator, value = (">=" if is_true else "<"), least
    scalar = _scalar(value, field.type)
    try:
        KERNELS[operator](pa.array([], field.type), scalar)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = (
            f"column {field.name!r} of topic {topic!r} is {field.type}, which cannot be compared "
            f"with {value!r}{_hint(value, field.type)}"
        )
        raise ExpressionTypeError(message) from error
    return Comparison(field.name, operator, scalar)


def _is_in(field: pa.Field, values: Sequence[object], topic: str) -> Predicate:
    """Return the values of the column's own type as one set, and a comparison for each other."""
    if not values:
        return Or(())  # false of a null, too
    own, others = [], []
    for value in values:
        if value is None:
            message = f"nothing equals null: ask ({field.name!r}, 'is', None) beside the others"
            raise OptionError(message)
        each = _comparison(field, "==", value, topic)
        scalar = cast("pa.Scalar", each.value)
        if each.operator == "==" and scalar.type.equals(field.type):
            own.append(scalar)
        else:
            others.append(each)
    # No row equals NaN, but a set of Arrow's that holds one finds it.
    kept = pa.array([each for each in own if each.as_py() == each.as_py()], field.type)
    return Or((IsIn(field.name, kept), *others)) if others else IsIn(field.name, kept)


def _scalar(value: object, data_type: pa.DataType) -> pa.Scalar:
    """Return `value` in the column's type where that changes nothing, else in its own."""
    if isinstance(value, pa.Scalar):
        return value
    types: Any = pa.types
    try:
        if isinstance(value, str) and types.is_temporal(data_type):
            return _parsed(value, data_type)
        scalar = pa.scalar(value, data_type)
        # What a float's width cannot hold is rounded, as in NumPy: 0.1 finds a float32's 0.1.
        if types.is_floating(data_type) or scalar.as_py() == value:
            return scalar
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        pass
    try:
        return pa.scalar(value)
    except pa.ArrowInvalid as error:
        message = f"{value!r} is no value of a column: {error}"
        raise ExpressionTypeError(message) from error


def _parsed(text: str, data_type: pa.DataType) -> pa.Scalar:
    """Return a time that is written in ISO 8601; without a zone it is in UTC."""
    zone = getattr(data_type, "tz", None)
    if zone is None:
        return pa.scalar(text).cast(data_type)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return pa.scalar(moment, pa.timestamp("us", "UTC"))


def _range(data_type: pa.DataType) -> tuple[int, int]:
    types: Any = pa.types
    bits = data_type.bit_width
    if types.is_signed_integer(data_type):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _is_beyond(value: object, data_type: pa.DataType) -> bool:
    types: Any = pa.types
    if not types.is_integer(data_type) or not isinstance(value, int) or isinstance(value, bool):
        return False
    least, greatest = _range(data_type)
    return not least <= value <= greatest


def _hint(value: object, data_type: pa.DataType) -> str:
    if isinstance(value, datetime) and value.tzinfo is None and getattr(data_type, "tz", None):
        return "; give the time a zone, e.g. tzinfo=UTC"
    return ""


def is_known(predicate: Predicate) -> bool:
    """Return whether the predicate alone decides, without any `Unknown` in it."""
    match predicate:
        case Unknown():
            return False
        case And(parts=parts) | Or(parts=parts):
            return all(is_known(each) for each in parts)
        case Not(part=part):
            return is_known(part)
        case _:
            return True


def _mask(predicate: Predicate, rows: pa.RecordBatch) -> pa.BooleanArray:
    match predicate:
        case Comparison(column=name, operator=operator, value=value):
            return KERNELS[operator](rows.column(name), value)
        case IsIn(column=name, values=values):
            column = rows.column(name)
            if pa.types.is_floating(column.type):
                # A set of Arrow's tells −0.0 from 0.0, which are equal.
                column, values = pc.add(column, 0.0), pc.add(values, 0.0)
            found = pc.is_in(column, values)
            if column.null_count:
                found = pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))
            return found
        case IsNull(column=name):
            return pc.is_null(rows.column(name))
        case And(parts=parts):
            return _joined(pc.and_kleene, True, parts, rows)
        case Or(parts=parts):
            return _joined(pc.or_kleene, False, parts, rows)
        case Not(part=part):
            return pc.invert(_mask(part, rows))
        case Unknown():
            message = "an unknown condition is evaluated by its expression"
            raise AssertionError(message)


def _joined(
    join: Callable[..., Any], neutral: bool, parts: Sequence[Predicate], rows: pa.RecordBatch
) -> pa.BooleanArray:
    if not parts:
        return pa.repeat(neutral, rows.num_rows)
    return reduce(join, (_mask(each, rows) for each in parts))


def _mask_of(expression: pc.Expression, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Return which rows an expression keeps; Arrow only filters by it, so they are numbered."""
    numbers = "_" * (1 + max(map(len, rows.schema.names), default=0))
    table = pa.table(rows).append_column(numbers, pa.array(np.arange(rows.num_rows)))
    kept = np.zeros(rows.num_rows, bool)
    kept[table.filter(expression)[numbers].to_numpy()] = True
    return pa.array(kept)
