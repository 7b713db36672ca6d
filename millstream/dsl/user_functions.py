"""`ms.udf`: functions of the user's own in expressions."""

from __future__ import annotations

import functools
import typing
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import promotion
from millstream.dsl.async_options import AsyncOptions, async_options
from millstream.dsl.binding import Scope, coerce, failure, named_type
from millstream.dsl.expressions import Expression, TypeName, option, to_expression
from millstream.dsl.location import user_location
from millstream.dsl.shipping import NotCompilableError, source_of, unshippable
from millstream.errors import ExpressionTypeError, PlanError, PythonFallbackWarning
from millstream.operators.expression import Call, TypedExpression
from millstream.operators.user_function import BatchFunction, CompiledFunction, PythonFunction


class UserFunction:
    """A function that takes expressions and is one: what `ms.udf` returns.

    Parameters
    ----------
    function
        The user's own.
    returns
        The declared type of the result, or `None`.
    batch, skip_nulls
        As for `ms.udf`.
    location
        `file:line` where it was made.
    asynchronous
        How it is called, where it is an async function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        returns: pa.DataType | None,
        batch: bool,
        skip_nulls: bool,
        location: str,
        asynchronous: AsyncOptions | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.returns = returns
        self.batch = batch
        self.skip_nulls = skip_nulls
        self.location = location
        self.name = getattr(function, "__name__", type(function).__name__)
        self.has_warned = False
        self.asynchronous = asynchronous

    def __call__(self, *arguments: object) -> Expression:
        """Return the function applied to expressions or constants."""
        location = user_location()
        if not any(isinstance(each, Expression) for each in arguments):
            message = (
                f"{location}: {self.name} needs a column, e.g. {self.name}(col(…)); to call it "
                f"with plain values, call {self.name}.function"
            )
            raise PlanError(message)
        operands = tuple(to_expression(each, location) for each in arguments)
        return Expression("udf", operands, (("function", self),), location)

    def __repr__(self) -> str:
        return self.name


@overload
def udf(
    function: Callable[..., Any],
    *,
    returns: TypeName | None = None,
    batch: bool = False,
    skip_nulls: bool = True,
    concurrency: int | None = None,
    timeout: str | timedelta | None = None,
    attempts: int | None = None,
    backoff: str | timedelta | None = None,
    cache: int | None = None,
) -> UserFunction: ...
@overload
def udf(
    function: None = None,
    *,
    returns: TypeName | None = None,
    batch: bool = False,
    skip_nulls: bool = True,
    concurrency: int | None = None,
    timeout: str | timedelta | None = None,
    attempts: int | None = None,
    backoff: str | timedelta | None = None,
    cache: int | None = None,
) -> Callable[[Callable[..., Any]], UserFunction]: ...
def udf(
    function: Callable[..., Any] | None = None,
    *,
    returns: TypeName | None = None,
    batch: bool = False,
    skip_nulls: bool = True,
    concurrency: int | None = None,
    timeout: str | timedelta | None = None,
    attempts: int | None = None,
    backoff: str | timedelta | None = None,
    cache: int | None = None,
) -> UserFunction | Callable[[Callable[..., Any]], UserFunction]:
    """Make a function of the user's own one of expressions.

    A function of numbers and booleans is compiled by Numba into the kernel of its stage. In it,
    integers have 64 bits and wrap. What Numba cannot compile, and what takes or gives text, times
    or other types, is called by Python for each row: a warning and `explain()` say so, with the
    reason. An exception fails its row.

    Parameters
    ----------
    function
        Takes a value an argument, and returns one.
    returns
        The type of the result; by default its annotation's, or what Numba finds.
    batch
        It takes Arrow arrays instead, with their nulls, and returns one of the same length (or
        what becomes one). Its type must be declared.
    skip_nulls
        A null argument gives null without a call. `False`: it gets `None`, in Python.

    concurrency, timeout, attempts, backoff, cache
        Of an `async def`, which asks another service for each row: how many calls are in flight at
        most, of each worker (100); how long an attempt may take ("30s"); how often a call is made
        that fails (1), and how long after the first time it is made again ("100ms", twice as long
        after each further one); how many answers a worker keeps for the same arguments (0). Rows
        stay in their order, and a checkpoint waits for the calls of the rows before it. A branch
        of `when` does not keep it from being called. After a failure of the job it is called again.

    Raises
    ------
    OptionError
        When an option is out of its range, or one of async functions is given to another.
    PlanError
        Where it is used: when it reads something from outside that cannot be sent to workers, or
        its type is neither declared nor found.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> @udf
    ... def hours(minutes: float) -> float:
    ...     return minutes / 60
    >>> hours(col("dep_delay"))
    hours(col("dep_delay"))
    """
    location = user_location()

    def made(wanted: Callable[..., Any]) -> UserFunction:
        if not callable(wanted):
            message = f"{location}: udf takes a function; got {wanted!r}"
            raise PlanError(message)
        type_ = _annotated(wanted) if returns is None else named_type(returns, location)
        given = {
            "concurrency": concurrency,
            "timeout": timeout,
            "attempts": attempts,
            "backoff": backoff,
            "cache": cache,
        }
        asynchronous = async_options(wanted, given, batch, location)
        return UserFunction(wanted, type_, batch, skip_nulls, location, asynchronous)

    return made if function is None else made(function)


def _annotated(function: Callable[..., Any]) -> pa.DataType | None:
    """Return the type that a function's annotation says, where it says one that is known."""
    try:
        named = typing.get_type_hints(function).get("return")
    except Exception:
        return None  # an annotation that is no expression here
    try:
        return None if named is None else named_type(named, "")
    except ExpressionTypeError:
        return None


def bind_user_function(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a call of a user's function, typed.

    Raises
    ------
    PlanError
        When it cannot be shipped, or its type is not known.
    """
    function = option(expression, "function")
    assert isinstance(function, UserFunction)
    arguments = [scope.bind(each) for each in expression.arguments]
    arguments = [coerce(each, promotion.plain(each.type)) for each in arguments]
    if function.asynchronous is not None:
        type_ = _declared(function, expression, "it is called when the job runs")
        _check_shippable(function, expression)
        held: object = function.asynchronous.of(
            function.name, function.function, function.skip_nulls
        )
        return Call("udf", tuple(arguments), type_, (("function", held),))
    if function.batch:
        type_ = _declared(function, expression, "it takes Arrow arrays")
        _check_shippable(function, expression)
        held = BatchFunction(function.name, function.function)
        return Call("udf", tuple(arguments), type_, (("function", held),))
    compiled = _compiled(function, [each.type for each in arguments])
    if isinstance(compiled, str):
        type_ = _declared(function, expression, f"Numba does not compile it ({compiled})")
        _check_shippable(function, expression)
        _warn(function, compiled, expression.location)
        held = PythonFunction(function.name, function.function, compiled, function.skip_nulls)
        return Call("udf", tuple(arguments), type_, (("function", held),))
    held, type_ = compiled
    call = Call("udf", tuple(arguments), type_, (("function", held),))
    return call if function.returns is None else coerce(call, function.returns)


def _compiled(
    function: UserFunction, types: list[pa.DataType]
) -> tuple[CompiledFunction, pa.DataType] | str:
    """Return the function for kernels and its type, or why there is none."""
    if not function.skip_nulls:
        return "it takes nulls"
    for index, each in enumerate(types):
        if not (promotion.is_number(each) or pat.is_boolean(each)) or pat.is_float16(each):
            return f"argument {index + 1} is {each}, and Numba takes numbers and bool"
    declared = function.returns
    if declared is not None and not (promotion.is_number(declared) or pat.is_boolean(declared)):
        return f"it gives {declared}, and Numba gives numbers and bool"
    try:
        source, name = source_of(function.function)
    except NotCompilableError as error:
        return str(error)
    from millstream.jit import result_dtype

    found = result_dtype(source, name, [np.dtype(each.to_pandas_dtype()) for each in types])
    if isinstance(found, str):
        return found
    return CompiledFunction(name, source), pa.from_numpy_dtype(found)


def _declared(function: UserFunction, expression: Expression, why: str) -> pa.DataType:
    if function.returns is None:
        what = f"the type that {function.name} gives is not known: {why}"
        raise failure(expression, what, "declare it: @ms.udf(returns=…), or annotate the function")
    return function.returns


def _check_shippable(function: UserFunction, expression: Expression) -> None:
    outside = unshippable(function.function)
    if outside is not None:
        message = (
            f"{expression.location}: {function.name} (at {function.location}) reads {outside}, "
            "which cannot be sent to workers; make it inside the function, or give it a value "
            "that can be pickled"
        )
        raise PlanError(message)


def _warn(function: UserFunction, reason: str, location: str) -> None:
    if not function.has_warned:
        function.has_warned = True
        message = f"{location}: {function.name} is called by Python for each row: {reason}"
        warnings.warn(message, PythonFallbackWarning, stacklevel=2)
