from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.change_rows import ChangeRowsConfig
from millstream.operators.consolidate import ConsolidateConfig, can_consolidate, consolidated
from millstream.operators.operator import ChangeMode
from tests.operators.change_kit import Row, changelogs, rows_of, weighted
from tests.operators.kit import Driven

SCHEMA = pa.schema({"key": pa.int64(), "value": pa.string()})
ROW = st.tuples(st.none() | st.integers(0, 2), st.none() | st.sampled_from(["x", "y"]))


def test_a_row_that_replaces_another_is_an_update() -> None:
    changes = weighted(
        [(1, "a"), (2, "b"), (3, "c"), (1, "z"), (None, "n"), (None, "m")],
        [-1, 1, -1, 1, 1, -1],
        SCHEMA,
    )
    driven = Driven(ChangeRowsConfig(SCHEMA, "op", ("key",)).build())
    driven.batch(changes)
    (found,) = driven.batches[0]
    assert rows_of(found) == [
        (1, "a", "-U"), (1, "z", "+U"), (2, "b", "+I"), (3, "c", "-D"),
        (None, "m", "-U"), (None, "n", "+U"),
    ]  # fmt: skip


def test_without_a_key_nothing_replaces_anything() -> None:
    changes = weighted([(1, "a"), (1, "z")], [-1, 2], SCHEMA)
    driven = Driven(ChangeRowsConfig(SCHEMA, "op", None).build())
    driven.batch(changes)
    assert rows_of(driven.batches[0][0]) == [(1, "a", "-D"), (1, "z", "+I"), (1, "z", "+I")]
    one_row = Driven(ChangeRowsConfig(SCHEMA, "op", ()).build())
    one_row.batch(weighted([(1, "a"), (1, "z")], [-1, 1], SCHEMA))
    assert rows_of(one_row.batches[0][0]) == [(1, "a", "-U"), (1, "z", "+U")]


def test_facts_weigh_one() -> None:
    driven = Driven(ChangeRowsConfig(SCHEMA, "weight", None).build())
    driven.batch(weighted([(1, "a")], [-3], SCHEMA))
    driven.batch(pa.RecordBatch.from_arrays([pa.array([2]), pa.array(["b"])], schema=SCHEMA))
    assert [rows_of(each) for each in driven.batches[0]] == [[(1, "a", -3)], [(2, "b", 1)]]


@settings(max_examples=50)
@given(changes=changelogs(ROW))
def test_consolidated_changes_mean_the_same_and_none_cancels(
    changes: list[tuple[Row, int]],
) -> None:
    batch = weighted([each for each, _ in changes], [weight for _, weight in changes], SCHEMA)
    wanted: dict[Row, int] = {}
    for row, weight in changes:
        wanted[row] = wanted.get(row, 0) + weight
    found = consolidated(batch)
    weights = found.column("_weight").to_pylist()
    rows = rows_of(found)
    assert dict(zip(rows, weights, strict=True)) == {k: v for k, v in wanted.items() if v}
    assert len(set(rows)) == len(rows)
    order = list(wanted)
    assert [order.index(each) for each in rows] == sorted(order.index(each) for each in rows)


def test_facts_and_what_cancels_wholly() -> None:
    driven = Driven(ConsolidateConfig(SCHEMA).build())
    facts = pa.RecordBatch.from_arrays([pa.array([2, 2]), pa.array(["b", "b"])], schema=SCHEMA)
    assert len(driven.batch(facts)) == 2
    assert driven.batch(weighted([(1, "a"), (1, "a")], [-1, 1], SCHEMA)) == []
    assert driven.operator.counters.rows_out == 2
    assert not can_consolidate(pa.schema({"list": pa.list_(pa.int8())}))


def test_what_they_take_and_give() -> None:
    rows, consolidate = ChangeRowsConfig(SCHEMA, "op", None), ConsolidateConfig(SCHEMA)
    assert (rows.consumes, rows.produces) == (ChangeMode.CHANGELOG, ChangeMode.APPEND)
    assert consolidate.consumes is consolidate.produces is ChangeMode.CHANGELOG
    assert rows.describe() == "a row for each change, with op"
    assert consolidate.describe() == "leave out changes that cancel each other"
