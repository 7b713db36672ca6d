"""Filters and projects in one compiled pass: every stateless run of a stage is one of these.

batch ─▶ what only Arrow computes ─▶ select: rows that pass ─▶ compute: numbers of those ─┐
         (texts, calendar)               │ row numbers             ▲                      ▼
         of the predicate                └─▶ take ─▶ what only Arrow computes ─▶ what Arrow makes
                                                     of those                    of both
What an output needs is computed of the rows that pass alone: it may be dear, or fail on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, Column, TypedExpression, columns_of
from millstream.operators.failing import may_fail, python_parts
from millstream.operators.functions.function import taken
from millstream.operators.fused_kernels import Computation, Inputs, Selection
from millstream.operators.kernels.fused_source import is_compiled
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)
from millstream.operators.poison import DEAD_LETTERS, FAIL, ErrorPolicy, with_poison
from millstream.operators.simplified import Interned, interned, simplified

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class FusedConfig:
    """Keeps the rows for which a predicate is true, and computes columns of them.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    predicate
        A boolean; a row where it is false or null is dropped. `None`: all rows are kept.
    outputs
        Name and expression of each result column.
    policy
        What becomes of a row that cannot be computed.
    """

    input_schema: pa.Schema
    predicate: TypedExpression | None
    outputs: tuple[tuple[str, TypedExpression], ...]
    policy: ErrorPolicy = FAIL

    @property
    def may_fail(self) -> bool:
        """Whether some row may be one that cannot be computed."""
        return any(map(may_fail, self.expressions))

    @property
    def expressions(self) -> tuple[TypedExpression, ...]:
        """All that is computed."""
        outputs = tuple(each for _, each in self.outputs)
        return outputs if self.predicate is None else (self.predicate, *outputs)

    @property
    def consumes(self) -> ChangeMode:
        """Changes too: a row and what takes it back are treated alike."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """What comes in."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """Stamps pass."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The computed columns; with dead letters, those."""
        own = pa.schema([pa.field(name, each.type) for name, each in self.outputs])
        return (own, DEAD_LETTERS) if self.policy.on_error == "dlq" else (own,)

    def build(self) -> Operator:
        """Return the operator; kernels are compiled when the first batch comes."""
        return Fused(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        names = ", ".join(name for name, _ in self.outputs)
        return f"filter and select {names}" if self.predicate is not None else f"select {names}"


class Fused(Stateless):
    """The running operator; see `FusedConfig`."""

    def __init__(self, config: FusedConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()
        self._schema = config.output_schemas[0]
        self._may_fail = config.may_fail
        # With each set of hidden columns that came.
        self._schemas: dict[tuple[str, ...], pa.Schema] = {}
        known: Interned = {}
        outputs = [interned(simplified(each), known) for _, each in config.outputs]
        # What only Arrow computes and a kernel takes as an input, by the input's name: of all
        # rows, for the predicate, and of those that pass it.
        self._prepared: dict[str, TypedExpression] = {}
        self._prepared_of_passed: dict[str, TypedExpression] = {}
        self._selection: Selection | None = None
        if config.predicate is not None:
            predicate = interned(simplified(config.predicate), known)
            predicate = self._compilable(predicate, self._prepared)
            self._selection = Selection(self._inputs([predicate]), predicate)
        # Outputs of the kernel by their place. Columns that pass without a filter cost nothing.
        filtered = self._selection is not None
        self._computed: dict[int | str, TypedExpression] = {
            index: self._compilable(each, self._prepared_of_passed)
            for index, each in enumerate(outputs)
            if is_compiled(each) and columns_of(each) and (filtered or isinstance(each, Call))
        }
        # Arrow's outputs by their place. What a kernel computes of them has a name.
        of_predicate = {
            id(each): f"_known_{number}"
            for number, each in enumerate(_calls_of(self._prepared.values()))
        }
        self._later: dict[int, TypedExpression] = {
            index: each
            if may_fail(each)
            else interned(self._without_numbers(each, of_predicate), known)
            for index, each in enumerate(outputs)
            if index not in self._computed
        }
        self._computations: dict[tuple[str, ...], Computation] = {}
        self._passes = all(isinstance(each, Column) for _, each in config.outputs)
        self._of_passed = frozenset[str]().union(
            *map(columns_of, [*self._prepared_of_passed.values(), *self._later.values()])
        )
        self._arrow_later = any(isinstance(each, Call) for each in self._later.values())
        self._arrow_first, self._python_first = _ways(self._prepared.values())
        later = [each for each in outputs if not is_compiled(each)]
        self._python_later = _ways([*later, *self._prepared_of_passed.values()])[1]

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the rows that pass, with the computed columns and the hidden ones.

        Raises
        ------
        RowError
            Where a row cannot be computed, if the policy is to fail; shows the row.
        """
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            if self._may_fail:
                yield from with_poison(
                    piece, self._apply, self.config.policy, self.counters, self.config.expressions
                )
                continue
            result = self._apply(piece)
            if result is not None:
                self.counters.rows_out += result.num_rows
                yield Emit(0, result)

    def _apply(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        """Return the result of at most `OUTPUT_ROWS_MAX` rows; `None` where no row passes."""
        count = batch.num_rows
        self.counters.rows_in += count
        if self._selection is not None or self._computed:
            self.counters.rows_numba += count
        known: dict[int, Any] = {}
        prepared = {name: evaluate(each, batch, known) for name, each in self._prepared.items()}
        self.counters.rows_arrow += count if self._arrow_first else 0
        self.counters.rows_python += count if self._python_first else 0

        def column(name: str) -> pa.Array:
            return prepared[name] if name in prepared else batch.column(name)

        selected: Int32Array | None = None
        if self._selection is not None:
            selected = self._selection.rows(column, count)
            if len(selected) == 0:
                return None
            if len(selected) == count and self._passes:
                selected = None
        names = batch.schema.names
        hidden = tuple(name for name in HIDDEN_COLUMNS if name in names)
        if selected is None and self._passes:
            return self._as_they_are(batch, hidden)
        passed = count if selected is None else len(selected)
        rows = self._rows_of_passed(batch, prepared, hidden, selected)
        if selected is not None:
            known = {}  # what was computed is of all rows
        for name, each in self._prepared_of_passed.items():
            prepared[name] = evaluate(each, rows, known)
        arrays = self._compute(column, hidden if selected is not None else (), passed, selected)
        by_arrow = self._arrow_later or (selected is not None and bool(self._later))
        if (by_arrow or self._prepared_of_passed) and not self._arrow_first:
            self.counters.rows_arrow += count
        self.counters.rows_python += passed if self._python_later else 0
        return self._assemble(batch, rows, arrays, hidden, known)

    def _as_they_are(self, batch: pa.RecordBatch, hidden: tuple[str, ...]) -> pa.RecordBatch:
        """Return columns of a batch, of all of its rows."""
        outputs = [each for _, each in self.config.outputs]
        names = [each.name for each in outputs if isinstance(each, Column)]
        columns = [batch.column(name) for name in (*names, *hidden)]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema_with(batch, hidden))

    def _schema_with(self, batch: pa.RecordBatch, hidden: tuple[str, ...]) -> pa.Schema:
        schema = self._schemas.get(hidden)
        if schema is None:
            schema = pa.schema([*self._schema, *(batch.schema.field(name) for name in hidden)])
            self._schemas[hidden] = schema
        return schema

    def _rows_of_passed(
        self,
        batch: pa.RecordBatch,
        prepared: dict[str, pa.Array],
        hidden: tuple[str, ...],
        selected: Int32Array | None,
    ) -> pa.RecordBatch:
        """Return the columns that Arrow needs of the rows that pass."""
        names = [name for name in batch.schema.names if name in self._of_passed]
        columns = [batch.column(name) for name in names]
        for name, array in prepared.items():
            if name in self._of_passed:
                names.append(name)
                columns.append(array)
        if not names:
            # A constant has no column to count its rows by.
            return batch if selected is None else batch.slice(0, len(selected))
        if selected is None and not prepared:
            return batch
        rows = pa.RecordBatch.from_arrays(columns, names)
        if selected is None or len(selected) == batch.num_rows:
            return rows
        return taken(rows, selected)

    def _compute(
        self,
        column: Callable[[str], pa.Array],
        hidden: tuple[str, ...],
        count: int,
        selected: Int32Array | None,
    ) -> dict[int | str, pa.Array]:
        """Return what a kernel computes, by its place among the outputs and hidden columns."""
        places = [
            *self._computed,
            *range(len(self.config.outputs), len(self._schema) + len(hidden)),
        ]
        if not places:
            return {}
        found = self._computations.get(hidden)
        if found is None:
            numbers = [Column(name, pa.int64()) for name in hidden]
            outputs = [*self._computed.values(), *numbers]
            dense = self._prepared_of_passed if selected is not None else ()
            found = Computation(
                self._inputs(outputs), outputs, selected=selected is not None, dense=dense
            )
            self._computations[hidden] = found
        return dict(zip(places, found.columns(column, count, selected), strict=True))

    def _assemble(
        self,
        batch: pa.RecordBatch,
        rows: pa.RecordBatch,
        arrays: dict[int | str, pa.Array],
        hidden: tuple[str, ...],
        known: dict[int, Any],
    ) -> pa.RecordBatch:
        """Return the result.

        Parameters
        ----------
        rows
            Of the rows that pass, the columns that Arrow needs.
        arrays
            What the kernel computed.
        known
            What is known of `rows`; see `evaluate`.
        """
        for name, array in arrays.items():
            if isinstance(name, str):
                rows = rows.append_column(name, array)
        columns = [
            arrays[index] if index in arrays else evaluate(self._later[index], rows, known)
            for index in range(len(self._schema))
        ]
        first = len(columns)
        columns += [
            arrays[first + number] if first + number in arrays else batch.column(name)
            for number, name in enumerate(hidden)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema_with(batch, hidden))

    def _inputs(self, expressions: Sequence[TypedExpression]) -> Inputs:
        """Return the columns that compilable `expressions` read, sorted by name."""
        types: dict[str, pa.DataType] = {}

        def visit(expression: TypedExpression) -> None:
            match expression:
                case Column(name=name, type=type_):
                    types[name] = type_
                case Call(arguments=arguments):
                    for each in arguments:
                        visit(each)
                case _:
                    pass

        for each in expressions:
            visit(each)
        return sorted(types.items())

    def _without_numbers(
        self, expression: TypedExpression, of_predicate: dict[int, str]
    ) -> TypedExpression:
        """Return an expression for Arrow with what is known, or a kernel computes, as columns.

        Parameters
        ----------
        of_predicate
            Names of what Arrow computes for the predicate, by the expression's `id`.
        """
        if not isinstance(expression, Call):
            return expression
        if id(expression) in of_predicate:
            name = of_predicate[id(expression)]
            self._prepared[name] = expression
            return Column(name, expression.type)
        if is_compiled(expression) and columns_of(expression):
            name = f"_computed_{len(self._computed)}"
            self._computed[name] = self._compilable(expression, self._prepared_of_passed)
            return Column(name, expression.type)
        arguments = tuple(
            self._without_numbers(each, of_predicate) for each in expression.arguments
        )
        return Call(expression.function, arguments, expression.type, expression.options)

    def _compilable(
        self, expression: TypedExpression, prepared: dict[str, TypedExpression]
    ) -> TypedExpression:
        """Return `expression` with what only Arrow computes as columns, added to `prepared`."""
        if is_compiled(expression):
            if not isinstance(expression, Call):
                return expression
            arguments = tuple(self._compilable(each, prepared) for each in expression.arguments)
            return Call(expression.function, arguments, expression.type, expression.options)
        for name, known in (*self._prepared.items(), *prepared.items()):
            if known == expression:
                return Column(name, expression.type)
        name = f"_prepared_{len(self._prepared) + len(self._prepared_of_passed)}"
        prepared[name] = expression
        return Column(name, expression.type)


def _calls_of(expressions: Iterable[TypedExpression]) -> Iterator[Call]:
    """Give all calls in expressions, those of arguments too."""
    for each in expressions:
        if isinstance(each, Call):
            yield each
            yield from _calls_of(each.arguments)


def _ways(expressions: Iterable[TypedExpression]) -> tuple[bool, bool]:
    """Return whether anything is computed by Arrow, and whether by Python, row after row."""
    parts = list(expressions)
    return bool(parts), any(True for each in parts for _ in python_parts(each))
