"""Lists become rows: as in Polars, whatever the batches, in bounded pieces."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import col
from millstream.dsl.source import stream
from millstream.errors import ExpressionTypeError, JobError, PlanError, UnknownColumnError
from millstream.operators.explode import ExplodeConfig
from millstream.operators.operator import OUTPUT_ROWS_MAX, ChangeMode
from tests.dsl.known_topics import KnownTopics
from tests.operators.kit import Driven, split_at

SCHEMA = pa.schema(
    {"id": pa.int64(), "items": pa.list_(pa.int64()), "words": pa.large_list(pa.string())}
)


def rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    items = st.none() | st.lists(st.none() | st.integers(0, 9), max_size=4)
    made = items.map(
        lambda given: {
            "items": given,
            "words": None if given is None else [str(each) for each in given],
        }
    )
    return st.lists(made, min_size=1, max_size=12).map(
        lambda found: [{"id": index, **each} for index, each in enumerate(found)]
    )


@given(
    data=rows(),
    cuts=st.lists(st.integers(1, 11), max_size=3),
    both=st.booleans(),
    empty=st.booleans(),
    nulls=st.booleans(),
)
def test_rows_are_those_of_polars(
    data: list[dict[str, Any]], cuts: list[int], both: bool, empty: bool, nulls: bool
) -> None:
    batch = pa.RecordBatch.from_pylist([data[0], *data], SCHEMA).slice(1)
    columns = ("items", "words") if both else ("items",)
    operator = Driven(ExplodeConfig(SCHEMA, columns, empty, nulls).build())
    hidden = batch.append_column("_weight", pa.array(range(batch.num_rows), pa.int64()))
    for piece in split_at(hidden, cuts):
        operator.batch(piece)
    got = [row for each in operator.batches.get(0, []) for row in each.to_pylist()]
    frame = pl.DataFrame(pa.table(batch)).with_columns(_weight=pl.col("id"))
    assert got == frame.explode(columns, empty_as_null=empty, keep_nulls=nulls).to_dicts()


def test_one_long_list_comes_out_in_pieces() -> None:
    count = 2 * OUTPUT_ROWS_MAX + 3
    schema = pa.schema({"n": pa.list_(pa.int64())})
    batch = pa.record_batch({"n": pa.array([[-1], list(range(count))], schema.field(0).type)})
    operator = ExplodeConfig(schema, ("n",), True, True).build()
    pieces = [each.batch for each in operator.on_batch(0, batch)]
    assert [each.num_rows for each in pieces] == [OUTPUT_ROWS_MAX, OUTPUT_ROWS_MAX, 4]
    assert pa.Table.from_batches(pieces)["n"].to_pylist() == list(range(-1, count))
    assert list(operator.on_batch(0, batch.slice(0, 0))) == []


def test_lists_of_different_lengths_are_told() -> None:
    schema = pa.schema({"a": pa.list_(pa.int64()), "b": pa.list_(pa.int64())})
    batch = pa.RecordBatch.from_pylist([{"a": [1], "b": [1]}, {"a": [1, 2], "b": []}], schema)
    with pytest.raises(JobError, match=r"\(a: 2, b: 0\)"):
        list(ExplodeConfig(schema, ("a", "b"), True, True).build().on_batch(0, batch))


def test_the_verbs() -> None:
    log = KnownTopics()
    log.add("rows", SCHEMA)
    source = stream("rows", log=log)
    assert source.explode("items").schema.field("items").type == pa.int64()
    words = source.flat_map(part=col("words").list.join(" ").str.split(" "))
    assert words.schema.names == [*SCHEMA.names, "part"]
    assert "a row for each item of part" in str(words.explain())
    with pytest.raises(UnknownColumnError, match="'item'; did you mean 'items'"):
        source.explode("item")
    with pytest.raises(ExpressionTypeError, match="needs a list; 'id' is int64"):
        source.explode("id")
    with pytest.raises(PlanError, match="each once"):
        source.explode("items", "items")
    with pytest.raises(PlanError, match="flat_map needs a list"):
        source.flat_map()
    config = ExplodeConfig(SCHEMA, ("items",), False, False)
    assert config.consumes is config.produces is ChangeMode.CHANGELOG
    assert config.describe() == "a row for each item of items"
