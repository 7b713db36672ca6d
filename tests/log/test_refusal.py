"""A block is refused only where none of its rows fulfils the condition."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.condition import bind
from millstream.log.predicate import Comparison, Not, Predicate
from millstream.log.refusal import may_fulfil
from millstream.log.statistics import BLOCK_COLUMN, _ColumnBounds
from tests.log.condition_kit import SCHEMA, predicates, rows


def statistics_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    block = pa.array([{"rows": batch.num_rows, "transactions": False}])
    columns = []
    for array in batch.columns:
        bounds = _ColumnBounds(array.type)
        bounds.add([array])
        columns.append(bounds.finish())
    return pa.record_batch([block, *columns], names=[BLOCK_COLUMN, *batch.schema.names])


@settings(max_examples=300)
@given(st.lists(rows(), min_size=1, max_size=3), predicates())
def test_no_block_is_refused_that_holds_a_row(
    block: list[dict[str, Any]], predicate: Predicate
) -> None:
    batch = pa.RecordBatch.from_pylist(block, SCHEMA)
    condition = bind(predicate, SCHEMA, "x")
    if pc.any(condition.mask(batch)).as_py():
        assert may_fulfil(condition.predicate, statistics_of(batch)).all()


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("values", [[2], [1, 2], [2, 3], [1, 3], [1], [3], [None], [2, None]])
def test_one_column_of_few_values_is_refused_exactly(operator: Any, values: list[Any]) -> None:
    schema = pa.schema([("n", pa.int64())])
    batch = pa.record_batch([pa.array(values, pa.int64())], schema=schema)
    comparison = Comparison("n", operator, 2)
    for predicate in (comparison, Not(comparison)):
        condition = bind(predicate, schema, "x")
        found = may_fulfil(condition.predicate, statistics_of(batch)).tolist()
        between = 1 in values and 3 in values  # then 2 may be there, too
        expected = bool(pc.any(condition.mask(batch)).as_py()) or (
            between and (operator == "==") == (predicate is comparison) and operator in {"==", "!="}
        )
        assert found == [expected], (predicate, values)
