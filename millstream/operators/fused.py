"""Filters and projects in one compiled pass: every stateless run of a stage is one of these.

batch ─▶ what only Arrow computes ─▶ select: rows that pass ─▶ compute: numbers of those
         (strings, calendar)             │ row numbers             ▲
         of the predicate                └─▶ take ─▶ what only Arrow computes of those

What an output needs is computed of the rows that pass alone: it may be dear, or fail on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

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
        # What only Arrow computes and a kernel takes as an input, by the input's name: of all
        # rows, for the predicate, and of those that pass it.
        self._prepared: dict[str, TypedExpression] = {}
        self._prepared_of_passed: dict[str, TypedExpression] = {}
        self._selection: Selection | None = None
        if config.predicate is not None:
            predicate = self._compilable(config.predicate, self._prepared)
            self._selection = Selection(self._inputs([predicate]), predicate)
        # Outputs of the kernel by their place. Columns that pass without a filter cost nothing.
        filtered = self._selection is not None
        self._computed: dict[int, TypedExpression] = {
            index: self._compilable(each, self._prepared_of_passed)
            for index, (_, each) in enumerate(config.outputs)
            if is_compiled(each) and columns_of(each) and (filtered or isinstance(each, Call))
        }
        self._computations: dict[tuple[str, ...], Computation] = {}
        self._passes = all(isinstance(each, Column) for _, each in config.outputs)
        self._arrow_first, self._python_first = _ways(self._prepared.values())
        later = [each for _, each in config.outputs if not is_compiled(each)]
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
        prepared = {name: evaluate(each, batch) for name, each in self._prepared.items()}
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
        passed = count if selected is None else len(selected)
        prepared |= self._prepare_passed(batch, selected)
        names = batch.schema.names
        hidden = tuple(name for name in HIDDEN_COLUMNS if name in names)
        arrays: dict[int, pa.Array] = {}
        if selected is not None or not self._passes:
            arrays = self._compute(column, hidden if selected is not None else (), passed, selected)
        result, by_arrow = self._assemble(batch, selected, arrays, hidden)
        if (by_arrow or self._prepared_of_passed) and not self._arrow_first:
            self.counters.rows_arrow += count
        self.counters.rows_python += passed if self._python_later else 0
        return result

    def _prepare_passed(
        self, batch: pa.RecordBatch, selected: Int32Array | None
    ) -> dict[str, pa.Array]:
        """Return what Arrow computes, for the outputs, of the selected rows alone."""
        if not self._prepared_of_passed:
            return {}
        rows = batch
        if selected is not None:
            parts = self._prepared_of_passed.values()
            needed = frozenset[str]().union(*(columns_of(each) for each in parts))
            names = [name for name in batch.schema.names if name in needed]
            # A constant has no column to count its rows by.
            rows = taken(batch.select(names or batch.schema.names[:1]), selected)
        return {name: evaluate(each, rows) for name, each in self._prepared_of_passed.items()}

    def _compute(
        self,
        column: Callable[[str], pa.Array],
        hidden: tuple[str, ...],
        count: int,
        selected: Int32Array | None,
    ) -> dict[int, pa.Array]:
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
        selected: Int32Array | None,
        arrays: dict[int, pa.Array],
        hidden: tuple[str, ...],
    ) -> tuple[pa.RecordBatch, bool]:
        """Return the result, and whether Arrow made a part of it.

        Parameters
        ----------
        arrays
            What the kernel computed; the rest is taken from the selected rows of `batch`.
        """
        outputs: list[TypedExpression] = [each for _, each in self.config.outputs]
        outputs += [Column(name, pa.int64()) for name in hidden]
        rest = [each for index, each in enumerate(outputs) if index not in arrays]
        rows = batch
        if rest and selected is not None:
            needed = frozenset[str]().union(*(columns_of(each) for each in rest))
            rows = batch.select([name for name in batch.schema.names if name in needed])
            # A constant has no column to count its rows by.
            rows = taken(rows, selected) if needed else batch.slice(0, len(selected))
        columns = [
            arrays[index] if index in arrays else evaluate(each, rows)
            for index, each in enumerate(outputs)
        ]
        schema = self._schemas.get(hidden)
        if schema is None:
            schema = pa.schema([*self._schema, *(batch.schema.field(name) for name in hidden)])
            self._schemas[hidden] = schema
        by_arrow = any(isinstance(each, Call) for each in rest) or (
            selected is not None and bool(rest)
        )
        return pa.RecordBatch.from_arrays(columns, schema=schema), by_arrow

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


def _ways(expressions: Iterable[TypedExpression]) -> tuple[bool, bool]:
    """Return whether anything is computed by Arrow, and whether by Python, row after row."""
    parts = list(expressions)
    return bool(parts), any(True for each in parts for _ in python_parts(each))
