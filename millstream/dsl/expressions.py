"""Untyped expressions: what a user writes about columns before any schema is known.

An expression is a tree of `Expression`s, each of which knows the user's line that made it.
`binding.bind` turns it into a typed one against a schema.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, TypeAlias

import pyarrow as pa

from millstream.dsl.location import user_location
from millstream.dsl.nested_methods import ListMethods, MapMethods, StructMethods
from millstream.dsl.text_methods import StringMethods
from millstream.dsl.time_methods import TimeMethods
from millstream.errors import ExpressionTypeError

TypeName: TypeAlias = str | type | pa.DataType
"""What names a type: `"int64"`, `int`, `pa.int64()`."""

Value: TypeAlias = (
    bool | int | float | str | bytes | Decimal | date | datetime | time | timedelta | None
)
"""What may stand in an expression as a constant."""

_INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "floor_divide": "//",
    "modulo": "%",
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "and": "&",
    "or": "|",
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expression:
    """A computation on the columns of a row; made by `col`, `lit`, `when` and operators.

    Operators build further expressions: `+ - * / // %`, comparisons, and `& | ~` for and,
    or, not (Python's own `and`, `or`, `not` cannot be overloaded; put comparisons in
    parentheses: `(col("a") > 1) & (col("b") < 2)`). Nulls follow SQL: arithmetic and
    comparison with null is null, and `&`, `|` are three-valued.

    Integers are computed in 64 bits and wrap where they overflow; `//` and `%` by zero are null;
    `/` gives floats, by zero infinite or NaN. Decimals are exact by SQL's rules of precision
    (`dsl/decimal_types.py`); one that overflows its type fails its row, and division by zero is
    null.

    Parameters
    ----------
    function
        `"column"`, `"literal"`, `"alias"`, or a function of the table in
        `millstream.operators.expression`.
    arguments
        Operands.
    options
        What is not an operand, e.g. `(("pattern", "JFK"),)`.
    location
        `file:line` where the user wrote it.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> (col("dep_delay") / 60).alias("hours")
    (col("dep_delay") / 60).alias("hours")
    """

    function: str
    arguments: tuple[Expression, ...]
    options: tuple[tuple[str, object], ...]
    location: str

    def call(self, function: str, *operands: object, **options: object) -> Expression:
        """Return `function` applied to this expression and `operands`, values or expressions."""
        location = user_location()
        arguments = (self, *(to_expression(each, location) for each in operands))
        return Expression(function, arguments, tuple(options.items()), location)

    def __repr__(self) -> str:
        return render(self)

    def __bool__(self) -> bool:
        message = (
            f"{user_location()}: {self!r} has no truth value before rows flow; combine conditions "
            "with & | ~ and parentheses, e.g. (col('a') > 1) & (col('b') < 2), instead of "
            "'and', 'or', 'not', 'in', 'if' or a chain like 1 < x < 5 (that is x.between(1, 5))"
        )
        raise ExpressionTypeError(message)

    def __add__(self, other: object) -> Expression:
        return self.call("add", other)

    def __radd__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("add", self)

    def __sub__(self, other: object) -> Expression:
        return self.call("subtract", other)

    def __rsub__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("subtract", self)

    def __mul__(self, other: object) -> Expression:
        return self.call("multiply", other)

    def __rmul__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("multiply", self)

    def __truediv__(self, other: object) -> Expression:
        return self.call("divide", other)

    def __rtruediv__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("divide", self)

    def __floordiv__(self, other: object) -> Expression:
        return self.call("floor_divide", other)

    def __rfloordiv__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("floor_divide", self)

    def __mod__(self, other: object) -> Expression:
        return self.call("modulo", other)

    def __rmod__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("modulo", self)

    def __neg__(self) -> Expression:
        # A negated constant stays one, so that its type still adapts to what it meets.
        value = option(self, "value") if self.function == "literal" else None
        if isinstance(value, int | float | Decimal | timedelta):
            return to_expression(-value, user_location())
        return self.call("negate")

    def __abs__(self) -> Expression:
        return self.call("abs")

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # builds an expression
        return self.call("equal", other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]  # builds an expression
        return self.call("not_equal", other)

    __hash__ = None  # type: ignore[assignment]  # == does not compare, so sets would lie

    def __lt__(self, other: object) -> Expression:
        return self.call("less", other)

    def __le__(self, other: object) -> Expression:
        return self.call("less_equal", other)

    def __gt__(self, other: object) -> Expression:
        return self.call("greater", other)

    def __ge__(self, other: object) -> Expression:
        return self.call("greater_equal", other)

    def __and__(self, other: object) -> Expression:
        return self.call("and", other)

    def __rand__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("and", self)

    def __or__(self, other: object) -> Expression:
        return self.call("or", other)

    def __ror__(self, other: object) -> Expression:
        return to_expression(other, user_location()).call("or", self)

    def __invert__(self) -> Expression:
        return self.call("not")

    def alias(self, name: str) -> Expression:
        """Return the same expression under the column name `name`."""
        return self.call("alias", name=name)

    def cast(self, to: TypeName, *, strict: bool = True) -> Expression:
        """Return the value as another type; a value that does not fit fails its row.

        A fraction is cut off where the type has none; a decimal's places are rounded; a time in a
        finer unit is floored; a text without a zone is a moment in UTC.

        Parameters
        ----------
        to
            A name (`"int64"`, `"float"`, `"string"`, `"timestamp"`, `"date"`, …), a Python
            type (`int`, `float`, `str`, `bool`) or a `pyarrow.DataType`.
        strict
            `False`: null for a value that does not fit.
        """
        return self.call("cast", to=to) if strict else self.call("cast", to=to, strict=False)

    def abs(self) -> Expression:
        """Return the absolute value."""
        return self.call("abs")

    def is_null(self) -> Expression:
        """Return whether the value is missing; never null itself."""
        return self.call("is_null")

    def is_not_null(self) -> Expression:
        """Return whether there is a value; never null itself."""
        return self.call("is_null").call("not")

    def fill_null(self, value: object) -> Expression:
        """Return the value, or `value` (a constant or an expression) where it is null."""
        return self.call("coalesce", value)

    def is_in(self, values: Iterable[Value]) -> Expression:
        """Return whether the value is one of `values`, which are constants and not None."""
        return self.call("is_in", values=tuple(values))

    def between(
        self,
        lower: object,
        upper: object,
        closed: Literal["both", "left", "right", "neither"] = "both",
    ) -> Expression:
        """Return whether the value lies between two bounds, which belong to it as `closed` says."""
        above = self.call("greater_equal" if closed in {"both", "left"} else "greater", lower)
        below = self.call("less_equal" if closed in {"both", "right"} else "less", upper)
        return above.call("and", below)

    def is_between(
        self,
        lower_bound: object,
        upper_bound: object,
        closed: Literal["both", "left", "right", "neither"] = "both",
    ) -> Expression:
        """Return whether the value lies between two bounds; the same as `between`."""
        return self.between(lower_bound, upper_bound, closed)

    def is_nan(self) -> Expression:
        """Return whether a number is NaN; null for null."""
        return self.call("is_nan")

    def is_not_nan(self) -> Expression:
        """Return whether a number is not NaN; null for null."""
        return self.call("is_nan").call("not")

    def is_finite(self) -> Expression:
        """Return whether a number is neither infinite nor NaN; null for null."""
        return self.call("is_finite")

    def fill_nan(self, value: object) -> Expression:
        """Return the number, or `value` where it is NaN."""
        arguments = (self.call("is_nan"), to_expression(value, user_location()), self)
        return Expression("case", arguments, (), user_location())

    def floor(self) -> Expression:
        """Return the greatest whole number that is not greater, in its own type."""
        return self.call("floor")

    def ceil(self) -> Expression:
        """Return the least whole number that is not less, in its own type."""
        return self.call("ceil")

    def round(self, decimals: int = 0) -> Expression:
        """Return the number rounded to so many places, half away from zero."""
        return self.call("round", places=decimals)

    def sqrt(self) -> Expression:
        """Return the square root, float64; NaN of a negative number."""
        return self.call("sqrt")

    def exp(self) -> Expression:
        """Return e to the power of the number, float64."""
        return self.call("exp")

    def log(self, base: float | None = None) -> Expression:
        """Return the logarithm, by default the natural one, float64."""
        logarithm = self.call("log")
        return logarithm if base is None else logarithm.call("divide", math.log(base))

    def pow(self, exponent: object) -> Expression:
        """Return the number to a power, float64."""
        return self.call("power", exponent)

    def __pow__(self, exponent: object) -> Expression:
        return self.pow(exponent)

    def sign(self) -> Expression:
        """Return -1, 0 or 1, in the number's own type."""
        return self.call("sign")

    def clip(self, lower_bound: object = None, upper_bound: object = None) -> Expression:
        """Return the value, or the bound that it is beyond; null stays null."""
        location = user_location()
        branches: tuple[Expression, ...] = ()
        if lower_bound is not None:
            branches += (self.call("less", lower_bound), to_expression(lower_bound, location))
        if upper_bound is not None:
            branches += (self.call("greater", upper_bound), to_expression(upper_bound, location))
        return Expression("case", (*branches, self), (), location) if branches else self

    def hash(self) -> Expression:
        """Return the hash by which keys are told apart, uint64: the same everywhere, for ever.

        It is of the logical value (`log/FORMAT.md`, "Key hash"): int32 5 and int64 5 have one.
        """
        return self.call("hash")

    @property
    def list(self) -> ListMethods:
        """What can be done with lists, e.g. `col("tags").list.len()`."""
        return ListMethods(self)

    @property
    def struct(self) -> StructMethods:
        """What can be done with structs: `col("user").struct.field("name")`."""
        return StructMethods(self)

    @property
    def map(self) -> MapMethods:
        """What can be done with maps: `col("headers").map.get("id")`."""
        return MapMethods(self)

    @property
    def str(self) -> StringMethods:
        """What can be done with text, e.g. `col("origin").str.lower()`."""
        return StringMethods(self)

    @property
    def dt(self) -> TimeMethods:
        """What can be done with dates and times, e.g. `col("scheduled").dt.hour()`."""
        return TimeMethods(self)


def col(name: str) -> Expression:
    """Return the column `name` of the stream that the expression is used on.

    Examples
    --------
    >>> col("dep_delay") > 15
    col("dep_delay") > 15
    """
    return Expression("column", (), (("name", name),), user_location())


def lit(value: Value) -> Expression:
    """Return a constant. Its type adapts to what it meets; `lit(None)` is null.

    Plain Python values in expressions become constants by themselves.
    """
    return to_expression(value, user_location())


def to_expression(value: object, location: str) -> Expression:
    """Return `value` if it is an expression, else a literal of it, written at `location`."""
    if isinstance(value, Expression):
        return value
    return Expression("literal", (), (("value", value),), location)


def option(expression: Expression, name: str) -> object:
    """Return option `name` of `expression`."""
    return dict(expression.options)[name]


def render(expression: Expression) -> str:
    """Return the expression as Python source that would make it."""
    function, arguments = expression.function, expression.arguments
    if function == "column":
        return f'col("{option(expression, "name")}")'
    if function == "literal":
        return repr(option(expression, "value"))
    if function in _INFIX:
        left, right = (_operand(each) for each in arguments)
        return f"{left} {_INFIX[function]} {right}"
    if function in {"negate", "not"}:
        return f"{'-' if function == 'negate' else '~'}{_operand(arguments[0])}"
    if function == "case":
        pairs = zip(arguments[0::2], arguments[1::2], strict=False)
        text = ".".join(f"when({when!r}).then({then!r})" for when, then in pairs)
        return f"{text}.otherwise({arguments[-1]!r})"
    if function == "udf":
        called = ", ".join(repr(each) for each in arguments)
        return f"{option(expression, 'function')!r}({called})"
    if function == "random":
        return f"random({option(expression, 'seed')})"
    shown = [repr(each) for each in arguments[1:]]
    for name, value in expression.options:
        if value is False and name != "strict":
            continue  # a switch that is off
        shown.append(f'"{value}"' if isinstance(value, str | pa.DataType) else repr(value))
    return f"{_operand(arguments[0])}.{function}({', '.join(shown)})"


def _operand(expression: Expression) -> str:
    text = render(expression)
    return f"({text})" if expression.function in _INFIX else text
