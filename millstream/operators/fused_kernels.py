"""The compiled loops of a fused operator, called with the memory of a batch's columns.

A kernel reads validity bitmaps only of inputs that have nulls, so there is one for each such
set of inputs; but never more than three, since each is compiled while rows wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import (
    array_of,
    bits_of,
    new_values,
    storage_dtype,
    validity_of,
    values_of,
)
from millstream.operators.expression import TypedExpression
from millstream.operators.kernels.fused_source import Source, compute_source, select_source
from millstream.operators.operator import OUTPUT_ROWS_MAX

Inputs = Sequence[tuple[str, pa.DataType]]
Int32Array = npt.NDArray[np.int32]

VARIANTS_MAX = 3

_ALL_VALID = np.full(OUTPUT_ROWS_MAX // 8, 0xFF, dtype=np.uint8)


class _Variants:
    """One loop, compiled for inputs of which some have nulls.

    Parameters
    ----------
    inputs
        Name and type of each.
    write
        Returns the source for inputs of which those have nulls.
    """

    def __init__(self, inputs: Inputs, write: Callable[[tuple[bool, ...]], Source]) -> None:
        self.names = tuple(name for name, _ in inputs)
        self._dtypes = [storage_dtype(type_) for _, type_ in inputs]
        self._write = write
        self._made: dict[tuple[bool, ...], tuple[Callable[..., Any], Source]] = {}

    def find(self, arrays: Sequence[pa.Array]) -> tuple[Callable[..., Any], Source, list[Any]]:
        """Return the kernel for `arrays`, its source, and the arguments that stand for them.

        Parameters
        ----------
        arrays
            The inputs, of at most `OUTPUT_ROWS_MAX` rows.
        """
        nulls = tuple(each.null_count > 0 for each in arrays)
        found = nulls if nulls in self._made else self._nearest(nulls)
        if found not in self._made:
            from millstream.jit import load_generated

            source = self._write(found)
            self._made[found] = load_generated(source.text, source.name), source
        arguments: list[Any] = []
        pairs = zip(arrays, self._dtypes, strict=True)
        for (array, dtype), reads_validity in zip(pairs, found, strict=True):
            if dtype is None:
                arguments += bits_of(array)
            else:
                arguments.append(values_of(array, dtype))
            if reads_validity:
                arguments += validity_of(array) if array.null_count else (_ALL_VALID, 0)
        return *self._made[found], arguments

    def _nearest(self, nulls: tuple[bool, ...]) -> tuple[bool, ...]:
        """Return for which inputs to expect nulls, where `nulls` are those that have some."""
        wider = [
            made
            for made in self._made
            if all(expects or not has for expects, has in zip(made, nulls, strict=True))
        ]
        if wider:
            return min(wider, key=sum)
        if len(self._made) < VARIANTS_MAX - 1:
            # What had nulls once will have them again.
            return tuple(any(each) for each in zip(nulls, *self._made, strict=True))
        return (True,) * len(nulls)


class Selection:
    """Finds the rows that pass a predicate.

    Parameters
    ----------
    inputs
        Columns that `predicate` reads.
    """

    def __init__(self, inputs: Inputs, predicate: TypedExpression) -> None:
        self._variants = _Variants(inputs, lambda nulls: select_source(inputs, nulls, predicate))

    def rows(self, column: Callable[[str], pa.Array], count: int) -> Int32Array:
        """Return the numbers of the rows that pass, ascending.

        Parameters
        ----------
        column
            Returns an input by its name.
        count
            Number of rows.
        """
        kernel, _, arguments = self._variants.find([column(n) for n in self._variants.names])
        selected: Int32Array = new_values(count, np.int32)
        passed = int(kernel(count, *arguments, selected))
        return selected[:passed]


class Computation:
    """Computes columns of all rows, or of those that were selected.

    Parameters
    ----------
    inputs
        Columns that `outputs` read.
    outputs
        What is computed.
    selected
        Whether only some rows are.
    dense
        Inputs that have values for the selected rows alone.
    """

    def __init__(
        self,
        inputs: Inputs,
        outputs: Sequence[TypedExpression],
        *,
        selected: bool,
        dense: Collection[str] = (),
    ) -> None:
        self._types = [(each.type, storage_dtype(each.type)) for each in outputs]
        self._variants = _Variants(
            inputs,
            lambda nulls: compute_source(inputs, nulls, outputs, selected=selected, dense=dense),
        )

    def columns(
        self, column: Callable[[str], pa.Array], count: int, selected: Int32Array | None
    ) -> list[pa.Array]:
        """Return the outputs of `count` rows.

        Parameters
        ----------
        column
            Returns an input by its name.
        count
            Number of rows to compute.
        selected
            Which they are.
        """
        kernel, source, arguments = self._variants.find([column(n) for n in self._variants.names])
        if selected is not None:
            arguments.append(selected)
        made = []
        for (type_, dtype), may_be_null in zip(self._types, source.may_be_null, strict=True):
            values = new_values(count, np.bool_ if dtype is None else dtype)
            valid = new_values(count, np.bool_) if may_be_null else None
            arguments += [values] if valid is None else [values, valid]
            made.append((values, type_, valid))
        kernel(count, *arguments)
        return [array_of(*each) for each in made]
