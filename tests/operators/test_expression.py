"""Trees of typed expressions: which columns they read, and replacing columns."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from millstream.operators.expression import Call, Column, Constant, columns_of, substitute
from tests.operators.expression_model import rows_of, same, value_of
from tests.operators.expression_strategies import SCHEMA, batches, expressions

INT = pa.int64()
A, B = Column("a", INT), Column("b", INT)
ONE = Constant(1, INT)


def test_the_columns_of_a_tree_are_those_of_its_leaves() -> None:
    tree = Call("add", (Call("multiply", (A, ONE), INT), Call("negate", (B,), INT)), INT)
    assert columns_of(tree) == {"a", "b"}
    assert columns_of(ONE) == frozenset()


def test_columns_are_replaced_once_not_again() -> None:
    tree = Call("add", (A, B), INT, (("option", 1),))
    swapped = substitute(tree, {"a": B, "b": A})
    assert swapped == Call("add", (B, A), INT, (("option", 1),))
    assert substitute(ONE, {"a": B}) == ONE


@given(data=st.data(), batch=batches)
def test_substituting_is_computing_the_column_first(
    data: st.DataObject, batch: pa.RecordBatch
) -> None:
    inner = data.draw(expressions(INT, 1))
    outer = data.draw(expressions(INT, 2))
    for row in rows_of(batch)[:5]:
        first = {**row, "i64": value_of(inner, row)}
        assert same(value_of(substitute(outer, {"i64": inner}), row), value_of(outer, first))
    assert columns_of(outer) <= set(SCHEMA.names)
