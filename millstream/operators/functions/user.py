"""Calls of users' functions where no fused kernel makes them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.expression import Call, Column
from millstream.operators.functions.function import Function, as_array, option
from millstream.operators.operator import OUTPUT_ROWS_MAX
from millstream.operators.user_function import BatchFunction, CompiledFunction, PythonFunction

if TYPE_CHECKING:
    from millstream.operators.fused_kernels import Computation


def _call(values: list[Any], call: Call) -> pa.Array:
    function = option(call, "function")
    count = max(len(each) for each in values if isinstance(each, pa.Array))
    arrays = [as_array(each, count) for each in values]
    match function:
        case CompiledFunction():
            return _compiled(function, arrays, call.type)
        case BatchFunction():
            return _batch(function, arrays, call.type)
        case _:
            return _rows(function, arrays, call.type)


@lru_cache(maxsize=128)
def _computation(
    function: CompiledFunction, types: tuple[pa.DataType, ...], type_: pa.DataType
) -> Computation:
    from millstream.operators.fused_kernels import Computation

    columns = tuple(Column(str(index), each) for index, each in enumerate(types))
    call = Call("udf", columns, type_, (("function", function),))
    return Computation([(each.name, each.type) for each in columns], [call], selected=False)


def _compiled(function: CompiledFunction, arrays: list[pa.Array], type_: pa.DataType) -> pa.Array:
    computation = _computation(function, tuple(each.type for each in arrays), type_)
    count = len(arrays[0])
    parts = []
    for begin in range(0, max(count, 1), OUTPUT_ROWS_MAX):
        pieces = [each.slice(begin, OUTPUT_ROWS_MAX) for each in arrays]
        try:
            parts += computation.columns(lambda name: pieces[int(name)], len(pieces[0]), None)  # noqa: B023  # called at once
        except Exception as error:
            raise JobError(_raised(function.name, error)) from error
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def _rows(function: PythonFunction, arrays: list[pa.Array], type_: pa.DataType) -> pa.Array:
    results: list[object] = []
    for row in zip(*(each.to_pylist() for each in arrays), strict=True):
        if function.skips_nulls and any(each is None for each in row):
            results.append(None)
            continue
        try:
            results.append(function.function(*row))
        except Exception as error:
            message = f"{_raised(function.name, error)}; its arguments were {row!r}"
            raise JobError(message) from error
    try:
        return pa.array(results, type_)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        message = f"function {function.name} gave what is no {type_}: {error}"
        raise JobError(message) from error


def _batch(function: BatchFunction, arrays: list[pa.Array], type_: pa.DataType) -> pa.Array:
    try:
        made = function.function(*arrays)
        array = made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
        if not isinstance(array, pa.Array):
            array = pa.array(array, type_)
    except Exception as error:
        raise JobError(_raised(function.name, error)) from error
    if len(array) != len(arrays[0]):
        message = f"function {function.name} gave {len(array)} values for {len(arrays[0])} rows"
        raise JobError(message)
    if not array.type.equals(type_):
        try:
            return array.cast(type_)
        except pa.ArrowException as error:
            message = f"function {function.name} gave {array.type}, which is no {type_}: {error}"
            raise JobError(message) from error
    return array


def _raised(name: str, error: Exception) -> str:
    return f"function {name} raised {type(error).__name__}: {error}"


FUNCTIONS: dict[str, Function] = {"udf": _call}
