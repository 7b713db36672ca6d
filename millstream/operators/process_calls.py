"""Calls of a user's `ProcessFunction`, and the rows that it gives out.

A call that fails leaves no trace: neither state nor timers nor results.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from millstream.errors import JobError, RowError, nearest
from millstream.operators.arrow_buffers import array_of
from millstream.operators.operator import POSITION_COLUMN, Emit, OperatorCounters
from millstream.operators.poison import (
    DEAD_LETTER_PORT,
    ErrorPolicy,
    dead_letters,
    letter,
    reason_of,
    shown_row,
)
from millstream.operators.position import place_of
from millstream.operators.process_function import (
    Made,
    ProcessContext,
    ProcessFunction,
    State,
    can_be_changed_in_place,
    converter_of,
    rows_of,
)

if TYPE_CHECKING:
    from millstream.operators.process_state import KeyedState

BATCH_ROWS = 8_192
"""Rows that are given out together."""


@dataclass(frozen=True, slots=True)
class Results:
    """What the rows of results are made of.

    Parameters
    ----------
    schema
        Key columns, the time column if there is one, the declared ones.
    key_columns, time_column
        Those that the operator fills.
    """

    schema: pa.Schema
    key_columns: tuple[str, ...]
    time_column: str | None

    @property
    def declared(self) -> list[pa.Field]:
        """Those that the function fills."""
        filled = {*self.key_columns, self.time_column}
        return [each for each in self.schema if each.name not in filled]


class Calls:
    """Calls a function for rows and timers, and gathers what it gives.

    Parameters
    ----------
    function, name
        The user's.
    state
        Of the operator.
    results
        What comes out.
    policy
        What becomes of a row on which it fails.
    counters
        Of the operator.
    """

    def __init__(
        self,
        function: ProcessFunction,
        name: str,
        state: KeyedState,
        results: Results,
        policy: ErrorPolicy,
        counters: OperatorCounters,
    ) -> None:
        self._function = function
        self._name = name
        self._state = state
        self._results = results
        self._policy = policy
        self._counters = counters
        self._of_state = {each.name: converter_of(each.name, each.type) for each in state.fields}
        self._in_place = any(can_be_changed_in_place(each.type) for each in state.fields)
        self._of_output = {
            each.name: converter_of(each.name, each.type) for each in results.declared
        }
        self._context = ProcessContext(State(self._of_state), self._key)
        self._slots: list[int] = []
        self._times: list[int] = []
        self._rows: list[Mapping[str, Any]] = []
        self._letters: list[dict[str, object]] = []

    def row(
        self,
        slot: int,
        row: dict[str, Any] | Exception,
        time_us: int | None,
        least_us: int | None,
        batch: pa.RecordBatch,
        index: int,
    ) -> None:
        """Call the function for row `index` of a batch.

        Parameters
        ----------
        slot
            Of its key.
        row
            As Python objects, or why it has none.
        time_us, least_us
            Its time, and the least time of a timer.

        Raises
        ------
        RowError
            Where it fails and that fails the job.
        """
        self._counters.rows_python += 1
        try:
            if isinstance(row, Exception):
                raise row
            self._call(self._function.on_row, (row,), slot, time_us, least_us)
        except Exception as error:
            self._failed(error, batch.slice(index, 1))

    def timer(self, slot: int, time_us: int) -> None:
        """Call the function for a timer of a key; raises as `row` does."""
        try:
            self._call(self._function.on_timer, (), slot, time_us, time_us + 1)
        except Exception as error:
            keys = dict(zip(self._results.key_columns, self._keys([slot]), strict=True))
            timer = pa.array([time_us], pa.timestamp("us", "UTC"))
            self._failed(error, pa.RecordBatch.from_pydict({**keys, "timer": timer}))

    def full_batches(self) -> Iterator[Emit]:
        """Emit what was gathered, where it is enough."""
        if len(self._rows) >= BATCH_ROWS or len(self._letters) >= BATCH_ROWS:
            yield from self.rest()

    def rest(self) -> Iterator[Emit]:
        """Emit what was gathered."""
        for begin in range(0, len(self._rows), BATCH_ROWS):
            end = begin + BATCH_ROWS
            yield Emit(0, self._batch(begin, end))
        self._counters.rows_out += len(self._rows)
        self._slots, self._times, self._rows = [], [], []
        if self._letters:
            letters, self._letters = self._letters, []
            yield Emit(DEAD_LETTER_PORT, dead_letters(letters))

    def _call(
        self,
        function: Callable[..., Made],
        arguments: tuple[Any, ...],
        slot: int,
        time_us: int | None,
        least_us: int | None,
    ) -> None:
        known = self._state.values.get(slot)
        # A call that fails must leave what it found.
        values = {} if known is None else copy.deepcopy(known) if self._in_place else dict(known)
        context = self._context
        context.turn_to(slot, time_us, least_us)
        context.state.turn_to(values)
        rows = [self._checked(each) for each in rows_of(function(*arguments, context))]
        if context.state.is_changed or self._in_place:
            converted = {name: self._of_state[name](each) for name, each in values.items()}
            self._state.values[slot] = converted
        self._state.set_timers(slot, context.timers_set, context.timers_cleared)
        self._rows += rows
        self._slots += [slot] * len(rows)
        if self._results.time_column is not None and time_us is not None:
            self._times += [time_us] * len(rows)

    def _checked(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row of results if it is one."""
        if not isinstance(row, Mapping):
            message = f"it gave {row!r}, and not a row such as {{'name': value}}"
            raise JobError(message)
        for name, value in row.items():
            if name not in self._of_output:
                known = list(self._of_output)
                message = f"it gave the column {name!r}{nearest(str(name), known)}"
                raise JobError(message)
            self._of_output[name](value)
        return row

    def _failed(self, error: Exception, told: pa.RecordBatch) -> None:
        row = {name: _value(told.column(name)) for name in told.schema.names}
        place = place_of(row.get(POSITION_COLUMN))
        reason = f"{self._name}: {reason_of(error)}"
        if self._policy.on_error == "fail":
            where = None
            if place is not None and self._policy.topics:
                topic = self._policy.topics[place.source]
                where = f"{topic}/{place.partition}, offset {place.offset}"
            message = f"{reason}; the row: {shown_row(row)}"
            raise RowError(message, place=where) from error
        self._counters.rows_failed += 1
        if self._policy.on_error == "dlq":
            self._letters.append(letter(row, reason, self._policy))

    def _batch(self, begin: int, end: int) -> pa.RecordBatch:
        rows, results = self._rows[begin:end], self._results
        columns = dict(zip(results.key_columns, self._keys(self._slots[begin:end]), strict=True))
        if results.time_column is not None and results.time_column not in columns:
            times = np.array(self._times[begin:end], dtype=np.int64)
            type_ = results.schema.field(results.time_column).type
            columns[results.time_column] = array_of(times, type_, None)
        for each in results.declared:
            columns[each.name] = pa.array([row.get(each.name) for row in rows], each.type)
        arrays = [columns[name] for name in results.schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=results.schema)

    def _keys(self, slots: Sequence[int]) -> list[pa.Array]:
        return self._state.index.keys(np.array(slots, dtype=np.int64))

    def _key(self, slot: int) -> dict[str, Any]:
        keys = self._keys([slot])
        return {
            name: each[0].as_py()
            for name, each in zip(self._results.key_columns, keys, strict=True)
        }


def _value(column: pa.Array) -> Any:
    """Return the only value of a column; as text where Python has no object for it."""
    try:
        return column[0].as_py()
    except (ValueError, OverflowError):
        return column.cast(pa.string())[0].as_py()
