"""Filters and projects in one compiled pass: every stateless run of a stage is one of these.

batch ─▶ what only Arrow computes (strings, calendar) ─▶ kernel: rows that pass, numbers
                                                            │ row numbers
         columns passed on as they are, texts ◀── take ─────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.arrow_buffers import (
    array_of,
    bits_of,
    storage_dtype,
    validity_of,
    values_of,
)
from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, Column, TypedExpression, columns_of
from millstream.operators.kernels.fused_source import (
    KERNEL_NAME,
    FusedSource,
    is_compiled,
    is_compiled_type,
)
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
)


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
    """

    input_schema: pa.Schema
    predicate: TypedExpression | None
    outputs: tuple[tuple[str, TypedExpression], ...]

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
        """The computed columns."""
        return (pa.schema([pa.field(name, each.type) for name, each in self.outputs]),)

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
        # What only Arrow computes and the kernel takes as an input, by the input's name.
        self._prepared: dict[str, TypedExpression] = {}
        self._predicate = None if config.predicate is None else self._compilable(config.predicate)
        self._computed: dict[int, TypedExpression] = {}
        for index, (_, expression) in enumerate(config.outputs):
            if not self._passes(expression) and self._worth_compiling(expression):
                self._computed[index] = self._compilable(expression)
        roots = [*self._computed.values()]
        if self._predicate is not None:
            roots.append(self._predicate)
        used = frozenset[str]().union(*(columns_of(each) for each in roots))
        self._inputs = [(name, self._type_of(name)) for name in sorted(used)]
        self._has_kernel = bool(roots)
        self._kernels: dict[tuple[bool, ...], tuple[Callable[..., Any], list[bool]]] = {}

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the rows that pass, with the computed columns and the hidden ones.

        Raises
        ------
        JobError
            Where a cast does not fit.
        """
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            result = self._apply(batch.slice(begin, OUTPUT_ROWS_MAX))
            if result.num_rows:
                self.counters.rows_out += result.num_rows
                yield Emit(0, result)

    def _apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        count = batch.num_rows
        self.counters.rows_in += count
        selected: npt.NDArray[np.int32] | None = None
        computed: dict[int, pa.Array] = {}
        if self._has_kernel:
            self.counters.rows_numba += count
            passed, selected, computed = self._run_kernel(batch)
        else:
            passed = count
        if passed == 0:
            return batch.slice(0, 0)
        if passed == count:
            selected = None
        return self._assemble(batch, selected, computed)

    def _assemble(
        self,
        batch: pa.RecordBatch,
        selected: npt.NDArray[np.int32] | None,
        computed: dict[int, pa.Array],
    ) -> pa.RecordBatch:
        """Return the result: what the kernel computed, and the rest of the selected rows."""
        config = self.config
        rows = batch
        by_arrow = [i for i in range(len(config.outputs)) if i not in computed]
        hidden = [name for name in HIDDEN_COLUMNS if name in batch.schema.names]
        if selected is not None:
            needed = frozenset(hidden).union(*(columns_of(config.outputs[i][1]) for i in by_arrow))
            rows = batch.select([n for n in batch.schema.names if n in needed])
            if needed:
                rows = rows.take(pa.array(selected))
        if any(isinstance(config.outputs[i][1], Call) for i in by_arrow):
            self.counters.rows_arrow += len(selected) if selected is not None else batch.num_rows
        columns = []
        for index, (_, expression) in enumerate(config.outputs):
            if index in computed:
                columns.append(computed[index])
            elif isinstance(expression, Column):
                columns.append(rows.column(expression.name))
            else:
                columns.append(self._evaluate_rows(expression, rows, selected, batch))
        fields = [*config.output_schemas[0], *(batch.schema.field(name) for name in hidden)]
        columns += [rows.column(name) for name in hidden]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    @staticmethod
    def _evaluate_rows(
        expression: TypedExpression,
        rows: pa.RecordBatch,
        selected: npt.NDArray[np.int32] | None,
        batch: pa.RecordBatch,
    ) -> pa.Array:
        """Return `expression` over the selected rows; a constant has no column to count by."""
        if not columns_of(expression):
            count = batch.num_rows if selected is None else len(selected)
            return evaluate(expression, batch.slice(0, count))
        return evaluate(expression, rows)

    def _run_kernel(
        self, batch: pa.RecordBatch
    ) -> tuple[int, npt.NDArray[np.int32] | None, dict[int, pa.Array]]:
        """Return how many rows pass, which (`None`: all), and the computed columns."""
        count = batch.num_rows
        if self._prepared:
            self.counters.rows_arrow += count
        arrays = []
        for name, _ in self._inputs:
            prepared = self._prepared.get(name)
            arrays.append(batch.column(name) if prepared is None else evaluate(prepared, batch))
        with_nulls = tuple(each.null_count > 0 for each in arrays)
        kernel, may_be_null = self._kernel(with_nulls)
        arguments: list[Any] = [count]
        for array, nulls in zip(arrays, with_nulls, strict=True):
            if pat.is_boolean(array.type):
                arguments += bits_of(array)
            else:
                arguments.append(values_of(array))
            if nulls:
                arguments += validity_of(array)
        selected = None
        if self._predicate is not None:
            selected = np.empty(count, dtype=np.int32)
            arguments.append(selected)
        outputs = []
        for (index, expression), nullable in zip(self._computed.items(), may_be_null, strict=True):
            dtype = storage_dtype(expression.type)
            values = np.empty(count, dtype=np.bool_ if dtype is None else dtype)
            valid = np.empty(count, dtype=np.bool_) if nullable else None
            arguments += [values] if valid is None else [values, valid]
            outputs.append((index, expression.type, values, valid))
        passed = int(kernel(*arguments))
        computed = {
            index: array_of(values[:passed], type_, None if valid is None else valid[:passed])
            for index, type_, values, valid in outputs
        }
        return passed, None if selected is None else selected[:passed], computed

    def _kernel(self, with_nulls: tuple[bool, ...]) -> tuple[Callable[..., Any], list[bool]]:
        """Return the kernel for inputs of which some have nulls, and which outputs may have."""
        from millstream.jit import load_generated

        found = self._kernels.get(with_nulls)
        if found is None:
            source = FusedSource(
                self._inputs, with_nulls, self._predicate, list(self._computed.values())
            )
            found = load_generated(source.text, KERNEL_NAME), source.output_may_be_null
            self._kernels[with_nulls] = found
        return found

    def _passes(self, expression: TypedExpression) -> bool:
        """Return `True` iff the column is passed on as it is, which costs nothing unfiltered."""
        if not isinstance(expression, Column):
            return False
        return self._predicate is None or not is_compiled_type(expression.type)

    @staticmethod
    def _worth_compiling(expression: TypedExpression) -> bool:
        """Return `True` iff the kernel computes the expression's root itself."""
        return is_compiled(expression) and bool(columns_of(expression))

    def _compilable(self, expression: TypedExpression) -> TypedExpression:
        """Return `expression` with what only Arrow computes replaced by prepared columns."""
        if is_compiled(expression):
            if not isinstance(expression, Call):
                return expression
            arguments = tuple(self._compilable(each) for each in expression.arguments)
            return Call(expression.function, arguments, expression.type, expression.options)
        for name, known in self._prepared.items():
            if known == expression:
                return Column(name, expression.type)
        name = f"_prepared_{len(self._prepared)}"
        self._prepared[name] = expression
        return Column(name, expression.type)

    def _type_of(self, name: str) -> pa.DataType:
        prepared = self._prepared.get(name)
        return self.config.input_schema.field(name).type if prepared is None else prepared.type
