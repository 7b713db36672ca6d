"""Writes the source of the kernels for a predicate and for a row of output expressions.

One kernel writes the numbers of the rows that pass, without a branch; the other computes the
outputs of those, the batch being in the cache. So outputs are as large as they must be. (Tried:
one loop with a branch mispredicts at 20-80 % passing and takes twice as long; one loop that
writes every output of every row is 10 % faster where the outputs are in the cache already, and
three times slower where memory of the batch's size must be had for them.)

A value is a pair of names: the value, and whether it is valid (`None`: always). What the
value is where it is not valid is arbitrary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.arrow_buffers import storage_dtype
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.failing import may_fail
from millstream.operators.functions.function import option
from millstream.operators.kernels.calendar_source import CALENDAR, field_code, is_compiled_field
from millstream.operators.user_function import CompiledFunction

_ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*"}
_COMPARISON = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_FUNCTIONS = frozenset(
    {*_ARITHMETIC, *_COMPARISON, "divide", "floor_divide", "modulo", "negate", "abs", "and", "or"}
    | {"not", "is_null", "case", "coalesce", "cast", "timestamp_add", "timestamp_subtract"}
    | {"floor", "ceil", "sqrt", "is_nan", "is_finite", "is_in", *CALENDAR}
)
_IS_IN_MAX = 16
"""The most values that are compared one after another."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value in the generated code: an expression, and one that is true iff it is not null."""

    code: str
    valid: str | None


def is_compiled_type(type_: pa.DataType) -> bool:
    """Return `True` iff a kernel can read and write values of `type_`."""
    return pat.is_boolean(type_) or storage_dtype(type_) is not None


def is_compiled(expression: TypedExpression) -> bool:
    """Return `True` iff the kernel computes this node itself, given its arguments."""
    if not is_compiled_type(expression.type):
        return False
    if not isinstance(expression, Call):
        return True
    if expression.function == "udf":
        return isinstance(dict(expression.options)["function"], CompiledFunction)
    if expression.function not in _FUNCTIONS:
        return False
    if expression.function == "case" and any(map(may_fail, expression.arguments)):
        return False  # a branch is for the rows that take it, and a kernel computes all
    types = [each.type for each in expression.arguments]
    if not all(is_compiled_type(each) for each in types):
        return False
    if expression.function == "cast":
        return _is_widening(types[0], expression.type)
    if expression.function.startswith("timestamp_"):
        return all(each.unit == expression.type.unit for each in types)
    if expression.function in CALENDAR:
        return is_compiled_field(expression)
    if expression.function == "is_in":
        return _is_short_list(expression)
    return not (expression.function == "negate" and pat.is_unsigned_integer(expression.type))


def _is_short_list(call: Call) -> bool:
    """Return `True` iff values are looked for of which each equals itself alone."""
    values, type_ = option(call, "values"), call.arguments[0].type
    plain = pat.is_integer(type_) or pat.is_boolean(type_)
    return (
        plain
        and 0 < len(values) <= _IS_IN_MAX
        and all(type(each) in {int, bool} or each is None for each in values)
    )


def _is_widening(source: pa.DataType, target: pa.DataType) -> bool:
    """Return `True` iff every value of `source` has one in `target`, or a nearest float."""
    if source == target:
        return True
    if pat.is_boolean(source):
        return bool(pat.is_integer(target) or pat.is_floating(target))
    if pat.is_integer(source) and pat.is_floating(target):
        return True
    if pat.is_floating(source) and pat.is_floating(target):
        return bool(source.bit_width <= target.bit_width)
    if not (pat.is_integer(source) and pat.is_integer(target)):
        return False
    signed = pat.is_signed_integer
    if signed(source) == signed(target):
        return bool(source.bit_width <= target.bit_width)
    return bool(signed(target) and source.bit_width < target.bit_width)


@dataclass(frozen=True, slots=True)
class Source:
    """A generated module with one function.

    Parameters
    ----------
    name, text
        Of the function, and the module's source.
    may_be_null
        Of each output, whether the kernel writes a validity for it.
    """

    name: str
    text: str
    may_be_null: tuple[bool, ...] = ()


def select_source(
    inputs: Sequence[tuple[str, pa.DataType]],
    with_nulls: Sequence[bool],
    predicate: TypedExpression,
) -> Source:
    """Return a kernel that writes the numbers of the rows for which `predicate` is true.

    Its arguments: the number of rows; for each input its values (for booleans: bytes of bits
    and the first bit's position), then, with nulls, its bitmap and the first bit's position;
    `selected` (int32, shape (n,)). Returns how many rows pass.

    Parameters
    ----------
    inputs
        Columns that the kernel reads: name and type, in the order of its arguments.
    with_nulls
        Whether each input comes with a validity bitmap.
    """
    writer = _Writer(inputs, with_nulls)
    writer.add("m = 0", 1)
    writer.add("for i in range(n):", 1)
    passed = writer.value(predicate)
    truth = passed.code if passed.valid is None else f"({passed.code}) & ({passed.valid})"
    writer.add("selected[m] = i")
    writer.add(f"m += np.int64({truth})")
    writer.add("return m", 1)
    return Source("select", writer.module("select", ["selected"]))


def compute_source(
    inputs: Sequence[tuple[str, pa.DataType]],
    with_nulls: Sequence[bool],
    outputs: Sequence[TypedExpression],
    *,
    selected: bool,
    dense: Collection[str] = (),
) -> Source:
    """Return a kernel that computes `outputs` of all rows, or of those in `selected`.

    Its arguments: the number of rows to compute; the inputs, as in `select_source`; with
    `selected`, their numbers (int32); for each output its values (for booleans bytes), then,
    where it may be null, its validity (bool).

    Parameters
    ----------
    dense
        Inputs that have values for the selected rows alone.
    """
    writer = _Writer(inputs, with_nulls, dense)
    writer.add("for o in range(n):", 1)
    writer.add("i = np.int64(selected[o])" if selected else "i = o")
    names = ["selected"] if selected else []
    may_be_null = []
    for index, output in enumerate(outputs):
        value = writer.value(output)
        writer.add(f"out{index}[o] = {value.code}")
        names.append(f"out{index}")
        may_be_null.append(value.valid is not None)
        if value.valid is not None:
            writer.add(f"out_valid{index}[o] = {value.valid}")
            names.append(f"out_valid{index}")
    return Source("compute", writer.module("compute", names), tuple(may_be_null))


class _Writer:
    """Writes the body of one loop over rows `i`; each subexpression is computed once."""

    def __init__(
        self,
        inputs: Sequence[tuple[str, pa.DataType]],
        with_nulls: Sequence[bool],
        dense: Collection[str] = (),
    ) -> None:
        self._rows = ["o" if name in dense else "i" for name, _ in inputs]
        self._functions: dict[CompiledFunction, str] = {}
        self._inputs = list(inputs)
        self._with_nulls = list(with_nulls)
        self._number = {name: index for index, (name, _) in enumerate(inputs)}
        self._lines: list[str] = []
        self._names: dict[TypedExpression, Value] = {}
        self._count = 0

    def module(self, name: str, more: Sequence[str]) -> str:
        """Return the module whose function `name` takes the inputs and `more`."""
        arguments = ["n"]
        for index, (_, type_) in enumerate(self._inputs):
            arguments.append(f"in{index}")
            if pat.is_boolean(type_):
                arguments.append(f"in_bit{index}")
            if self._with_nulls[index]:
                arguments += [f"valid{index}", f"valid_bit{index}"]
        head = f"def {name}({', '.join([*arguments, *more])}):"
        imports = ["import numpy as np", *self._loads()]
        return "\n".join([*imports, "", "", head, *self._lines]) + "\n"

    def _loads(self) -> list[str]:
        if not self._functions:
            return []
        loads = [
            f"{name} = load_user_function({each.source!r}, {each.name!r})"
            for each, name in self._functions.items()
        ]
        return ["", "from millstream.jit import load_user_function", "", *loads]

    def add(self, line: str, indent: int = 2) -> None:
        """Add a line to the body."""
        self._lines.append("    " * indent + line)

    def _named(self, code: str) -> str:
        """Give `code` a name, so that it is computed once."""
        name = f"v{self._count}"
        self._count += 1
        self.add(f"{name} = {code}")
        return name

    def value(self, expression: TypedExpression) -> Value:
        """Return the value of `expression`, with the lines that compute it added."""
        found = self._names.get(expression)
        if found is None:
            match expression:
                case Column(name=name, type=type_):
                    found = self._column(self._number[name], type_)
                case Constant(value=value, type=type_):
                    found = _constant(value, type_)
                case Call():
                    found = self._call(expression)
            self._names[expression] = found
        return found

    def _column(self, index: int, type_: pa.DataType) -> Value:
        valid, row = None, self._rows[index]
        if self._with_nulls[index]:
            valid = self._named(_bit(f"valid{index}", f"valid_bit{index}", row))
        if pat.is_boolean(type_):
            return Value(self._named(_bit(f"in{index}", f"in_bit{index}", row)), valid)
        return Value(self._named(f"in{index}[{row}]"), valid)

    def _call(self, call: Call) -> Value:
        values = [self.value(each) for each in call.arguments]
        function = call.function
        if function == "is_null":
            valid = values[0].valid
            return Value("False" if valid is None else self._named(f"not ({valid})"), None)
        if function in {"and", "or"}:
            return self._kleene(function, values)
        if function == "case":
            return self._case(values)
        if function == "coalesce":
            return self._coalesce(values)
        if function in {"floor_divide", "modulo"}:
            return self._divide_down(call, values)
        if function == "udf":
            return self._user_function(call, values)
        if function == "is_in":
            return self._is_in(call, values[0])
        valid = _all_valid(values)
        return Value(self._named(_plain_code(call, [each.code for each in values])), valid)

    def _kleene(self, function: str, values: list[Value]) -> Value:
        left, right = values
        sign = "&" if function == "and" else "|"
        code = self._named(f"({left.code}) {sign} ({right.code})")
        if left.valid is None and right.valid is None:
            return Value(code, None)
        # Null with false is false, null with true is true: the other side decides.
        decides = "not " if function == "and" else ""
        known = [each.valid or "True" for each in values]
        valid = self._named(
            f"({known[0]} and {known[1]}) or ({known[0]} and {decides}({left.code})) "
            f"or ({known[1]} and {decides}({right.code}))"
        )
        # The value under a null is arbitrary: one decided side fixes it.
        decided = [f"({k} and {decides}({v.code}))" for k, v in zip(known, values, strict=True)]
        settled = "False" if function == "and" else "True"
        return Value(self._named(f"{settled} if {decided[0]} or {decided[1]} else {code}"), valid)

    def _case(self, values: list[Value]) -> Value:
        code, valid = values[-1].code, values[-1].valid or "True"
        for index in range(len(values) - 3, -1, -2):
            condition, chosen = values[index], values[index + 1]
            test = condition.code
            if condition.valid is not None:
                test = f"({condition.code}) and ({condition.valid})"
            test = self._named(test)
            code = self._named(f"{chosen.code} if {test} else {code}")
            valid = self._named(f"{chosen.valid or 'True'} if {test} else {valid}")
        never_null = all(each.valid is None for each in [*values[1::2], values[-1]])
        return Value(code, None if never_null else valid)

    def _coalesce(self, values: list[Value]) -> Value:
        code, valid = values[-1].code, values[-1].valid
        for each in reversed(values[:-1]):
            if each.valid is None:
                code, valid = each.code, None
                continue
            code = self._named(f"{each.code} if {each.valid} else {code}")
            valid = None if valid is None else self._named(f"{each.valid} or {valid}")
        return Value(code, valid)

    def _is_in(self, call: Call, value: Value) -> Value:
        type_ = call.arguments[0].type
        wanted = option(call, "values")
        known = [_constant(each, type_).code for each in wanted if each is not None]
        code = self._named(" or ".join(f"{value.code} == {each}" for each in known) or "False")
        if len(known) == len(wanted):
            return Value(code, value.valid)
        # With a null in the list no miss is certain.
        return Value(code, code if value.valid is None else f"({code}) and ({value.valid})")

    def _user_function(self, call: Call, values: list[Value]) -> Value:
        """Return a call of a user's function, which sees no nulls: what lies there is arbitrary."""
        function = dict(call.options)["function"]
        assert isinstance(function, CompiledFunction)
        name = self._functions.setdefault(function, f"user{len(self._functions)}")
        code = _typed(f"{name}({', '.join(each.code for each in values)})", call.type)
        valid = _all_valid(values)
        if valid is not None:
            code = f"{code} if {valid} else {_constant(None, call.type).code}"
        return Value(self._named(code), valid)

    def _divide_down(self, call: Call, values: list[Value]) -> Value:
        left, right = values[0].code, values[1].code
        down = call.function == "floor_divide"
        valid = _all_valid(values)
        if pat.is_floating(call.type):
            code = f"np.floor({left} / {right})" if down else f"np.mod({left}, {right}) + 0.0"
            return Value(self._named(_typed(code, call.type)), valid)
        not_zero = self._named(f"{right} != 0")
        valid = not_zero if valid is None else self._named(f"{valid} and {not_zero}")
        # The processor traps on x // 0 and on the least integer // -1.
        one = _typed("1", call.type)
        divisor = self._named(f"{right} if {not_zero} else {one}")
        if pat.is_unsigned_integer(call.type):
            return Value(self._named(f"{left} {'//' if down else '%'} {divisor}"), valid)
        minus = self._named(f"{divisor} == -1")
        divisor = self._named(f"{one} if {minus} else {divisor}")
        if down:
            code = f"-{left} if {minus} else {left} // {divisor}"
        else:
            code = f"{_typed('0', call.type)} if {minus} else {left} % {divisor}"
        return Value(self._named(_typed(f"({code})", call.type)), valid)


def _plain_code(call: Call, codes: list[str]) -> str:
    """Return the code of a function that is null iff an argument is."""
    function = call.function
    if function in _COMPARISON:
        return f"{codes[0]} {_COMPARISON[function]} {codes[1]}"
    if function in _ARITHMETIC:
        return _typed(f"{codes[0]} {_ARITHMETIC[function]} {codes[1]}", call.type)
    match function:
        case "divide":
            return f"{codes[0]} / {codes[1]}"
        case "negate":
            return _typed(f"-{codes[0]}", call.type)
        case "abs":
            return _typed(f"abs({codes[0]})", call.type)
        case "not":
            return f"not {codes[0]}"
        case "cast":
            return _typed(codes[0], call.type)
        case "floor" | "ceil" | "sqrt":
            return _typed(f"np.{function}({codes[0]})", call.type)
        case "is_nan":
            return f"{codes[0]} != {codes[0]}"
        case "is_finite":
            return f"np.isfinite({codes[0]})"
        case name if name in CALENDAR:
            return _typed(field_code(call, codes[0]), call.type)
        case "timestamp_add":
            return f"{codes[0]} + {codes[1]}"
        case "timestamp_subtract":
            return f"{codes[0]} - {codes[1]}"
    message = f"no code for {function!r}"
    raise AssertionError(message)


def _typed(code: str, type_: pa.DataType) -> str:
    """Return `code` cut to its type: Numba computes small integers in 64 bits."""
    if pat.is_boolean(type_):
        return f"({code})"
    dtype = storage_dtype(type_)
    assert dtype is not None
    return f"np.{dtype.name}({code})"


def _constant(value: object, type_: pa.DataType) -> Value:
    if value is None:
        return Value("False" if pat.is_boolean(type_) else _typed("0", type_), "False")
    if pat.is_boolean(type_):
        return Value(str(bool(value)), None)
    if pat.is_temporal(type_):
        scalar = pa.scalar(value, type_)
        value = scalar.cast(pa.int32() if type_.bit_width == 32 else pa.int64()).as_py()
    if isinstance(value, float) and not math.isfinite(value):
        return Value(_typed(_special(value), type_), None)
    return Value(_typed(repr(value), type_), None)


def _special(value: float) -> str:
    """Return how NumPy calls a float that has no digits."""
    if math.isnan(value):
        return "np.nan"
    return "np.inf" if value > 0 else "-np.inf"


def _bit(bitmap: str, first: str, row: str) -> str:
    return f"({bitmap}[({first} + {row}) >> 3] >> (({first} + {row}) & 7)) & 1 != 0"


def _all_valid(values: list[Value]) -> str | None:
    known = [each.valid for each in values if each.valid is not None]
    return " and ".join(f"({each})" for each in known) if known else None
