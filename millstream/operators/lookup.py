"""Columns that async functions of the user's own give: answers of other services.

rows ─▶ arguments that are not in the cache ─▶ calls, so many at a time, by the host's event loop
                 rest until all have answered ─▶ rows in their order, with the answers

All calls of a batch have ended before the next one, or a barrier, is taken: none is in flight at a
checkpoint. The worker does other work meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from millstream.operators.functions.function import taken
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    WAIT,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)
from millstream.operators.poison import (
    DEAD_LETTER_PORT,
    DEAD_LETTERS,
    FAIL,
    ErrorPolicy,
    letters_of,
    row_error,
)
from millstream.operators.user_function import AsyncFunction

Arguments: TypeAlias = tuple[Any, ...]
Answers: TypeAlias = list[Any]
"""An answer for each call, or the exception that it ended with."""


class PendingAnswers(Protocol):
    """Calls that were handed over."""

    def done(self) -> bool:
        """Return `True` iff all have ended."""
        ...

    def result(self) -> Answers:
        """Return what they gave."""
        ...


class Lookups(Protocol):
    """Makes calls of async functions beside the worker. Hosts provide how."""

    def submit(self, function: AsyncFunction, calls: Sequence[Arguments]) -> PendingAnswers:
        """Make a call for each of some arguments."""
        ...


@dataclass(frozen=True, slots=True)
class LookupCall:
    """One column of answers.

    Parameters
    ----------
    name, type
        Of the column.
    function
        What is called.
    arguments
        Columns of the input.
    """

    name: str
    type: pa.DataType
    function: AsyncFunction
    arguments: tuple[str, ...]

    def describe(self) -> str:
        """Return it as `explain()` shows it."""
        function = self.function
        kept = f", {function.cache:,} answers kept" if function.cache else ""
        return (
            f"{function.name}({', '.join(self.arguments)}), {function.concurrency} at a time{kept}"
        )


@dataclass(frozen=True, slots=True)
class LookupConfig:
    """Adds columns of answers.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    calls
        What is added.
    policy
        What becomes of a row for which a call fails.
    """

    input_schema: pa.Schema
    calls: tuple[LookupCall, ...]
    policy: ErrorPolicy = FAIL

    @property
    def may_fail(self) -> bool:
        """A service may have no answer."""
        return True

    @property
    def consumes(self) -> ChangeMode:
        """Facts: when a row is taken back the answer may be another one."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Facts."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Stamps pass."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state that is kept."""
        return False

    @property
    def result_schema(self) -> pa.Schema:
        """The input's columns and the answers."""
        return pa.schema([*self.input_schema, *(pa.field(c.name, c.type) for c in self.calls)])

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The results; with dead letters, those."""
        own = self.result_schema
        return (own, DEAD_LETTERS) if self.policy.on_error == "dlq" else (own,)

    def build(self) -> Operator:
        """Return the operator; before its first row it must be given who makes calls."""
        return Lookup(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"async calls: {'; '.join(each.describe() for each in self.calls)}"


class Lookup(Stateless):
    """The running operator; see `LookupConfig`."""

    def __init__(self, config: LookupConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()
        self.lookups: Lookups | None = None
        """Who makes the calls; set by the worker."""
        self._caches: list[OrderedDict[Arguments, Any]] = [OrderedDict() for _ in config.calls]

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the rows with the answers, `WAIT` until they are there.

        Raises
        ------
        RowError
            Where a call fails, if the policy is to fail; shows the row.
        """
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            yield from self._piece(batch.slice(begin, OUTPUT_ROWS_MAX))

    def _piece(self, rows: pa.RecordBatch) -> Iterator[Emit]:
        self.counters.rows_in += rows.num_rows
        self.counters.rows_python += rows.num_rows
        asked = [_Asked(call, rows) for call in self.config.calls]
        pending = []
        for each, cache in zip(asked, self._caches, strict=True):
            assert self.lookups is not None, "the worker says who makes calls"
            pending.append(self.lookups.submit(each.call.function, each.missing(cache)))
        while not all(each.done() for each in pending):
            yield WAIT
        failures: dict[int, Exception] = {}
        columns = []
        for each, cache, answers in zip(asked, self._caches, pending, strict=True):
            columns.append(each.column(answers.result(), cache, failures))
        policy = self.config.policy
        if failures and policy.on_error == "fail":
            first = min(failures)
            raise row_error(rows, first, failures[first]) from failures[first]
        names, hidden = self.config.input_schema.names, rows.schema
        own = [rows.column(name) for name in names]
        added = [each for each in hidden if each.name not in names]
        result = pa.RecordBatch.from_arrays(
            [*own, *columns, *(rows.column(each.name) for each in added)],
            schema=pa.schema([*self.config.result_schema, *added]),
        )
        if failures:
            kept = np.ones(rows.num_rows, dtype=bool)
            kept[list(failures)] = False
            self.counters.rows_failed += len(failures)
            if policy.on_error == "dlq":
                yield Emit(DEAD_LETTER_PORT, letters_of(rows, sorted(failures.items()), policy))
            result = taken(result, np.flatnonzero(kept))
        if result.num_rows:
            self.counters.rows_out += result.num_rows
            yield Emit(0, result)


class _Asked:
    """What is asked for one batch by one call."""

    def __init__(self, call: LookupCall, rows: pa.RecordBatch) -> None:
        self.call = call
        columns = [rows.column(name).to_pylist() for name in call.arguments]
        self._arguments: list[Arguments] = list(zip(*columns, strict=True))
        self._calls: list[Arguments] = []
        # Which call answers a row, or the answer that is known.
        self._of_rows: list[int | None] = []
        self._known: dict[int, Any] = {}

    def missing(self, cache: OrderedDict[Arguments, Any]) -> list[Arguments]:
        """Return the arguments of calls that must be made; with a cache, each once."""
        function, numbers = self.call.function, dict[Arguments, int]()
        for row, arguments in enumerate(self._arguments):
            if function.skips_nulls and any(each is None for each in arguments):
                self._known[row] = None
                self._of_rows.append(None)
                continue
            if not (function.cache and _can_be_kept(arguments)):
                self._of_rows.append(len(self._calls))
                self._calls.append(arguments)
                continue
            if arguments in cache:
                cache.move_to_end(arguments)
                self._known[row] = cache[arguments]
                self._of_rows.append(None)
                continue
            if arguments not in numbers:
                numbers[arguments] = len(self._calls)
                self._calls.append(arguments)
            self._of_rows.append(numbers[arguments])
        return self._calls

    def column(
        self,
        answers: Answers,
        cache: OrderedDict[Arguments, Any],
        failures: dict[int, Exception],
    ) -> pa.Array:
        """Return the answers by row; null where there is none, which is noted in `failures`."""
        values = []
        for row, number in enumerate(self._of_rows):
            answer = self._known.get(row) if number is None else answers[number]
            if isinstance(answer, Exception):
                failures.setdefault(row, answer)
                answer = None
            values.append(answer)
        try:
            made = pa.array(values, self.call.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            made = pa.array(self._fitting(values, failures), self.call.type)
        self._keep(answers, cache)
        return made

    def _fitting(self, values: list[Any], failures: dict[int, Exception]) -> list[Any]:
        """Return the values without those that are not of the column's type."""
        kept = []
        for row, value in enumerate(values):
            try:
                pa.scalar(value, self.call.type)
                kept.append(value)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                message = f"{self.call.function.name} gave what is no {self.call.type}: {error}"
                failures.setdefault(row, TypeError(message))
                kept.append(None)
        return kept

    def _keep(self, answers: Answers, cache: OrderedDict[Arguments, Any]) -> None:
        size = self.call.function.cache
        if not size:
            return
        for arguments, answer in zip(self._calls, answers, strict=True):
            if not isinstance(answer, Exception) and _can_be_kept(arguments):
                cache[arguments] = answer
        while len(cache) > size:
            cache.popitem(last=False)


def _can_be_kept(arguments: Arguments) -> bool:
    return not any(isinstance(each, list | dict) for each in arguments)
