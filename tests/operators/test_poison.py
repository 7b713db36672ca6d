"""The rows that fail are those that fail alone, whichever way they are found."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.conditions import when
from millstream.dsl.expressions import Expression, col
from millstream.dsl.user_functions import udf
from millstream.errors import RowError
from millstream.operators.fused import Fused, FusedConfig
from millstream.operators.poison import DEAD_LETTERS, ErrorPolicy, OnError
from millstream.operators.position import positions

SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string(), "n": pa.int64()})
TEXTS = ["1", "-7", "+3", " 4 ", "x", "", "1" * 19, "9" * 19, "0x1F", None]


@udf
def inverse(n):  # type: ignore[no-untyped-def]
    return 60 // n


EXPRESSIONS: list[Expression] = [
    col("text").cast("int64"),
    col("text").cast("int64").cast("int8"),
    inverse(col("n")),
    inverse(col("text").cast("int64") + col("n")),
    when(col("n") > 0).then(col("text").cast("int64")).otherwise(0),
]


def operator(expression: Expression, filtered: bool, on_error: OnError) -> Fused:
    predicate = bind(col("n") > -2, SCHEMA) if filtered else None
    outputs = (("id", bind(col("id"), SCHEMA)), ("out", bind(expression, SCHEMA)))
    policy = ErrorPolicy(on_error, "job", "mine", "here:1", ("rows",))
    return Fused(FusedConfig(SCHEMA, predicate, outputs, policy))


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.sampled_from(TEXTS), st.integers(-3, 3)), min_size=1, max_size=40),
    expression=st.sampled_from(EXPRESSIONS),
    filtered=st.booleans(),
)
def test_what_fails_is_what_fails_alone(
    rows: list[tuple[str | None, int]], expression: Expression, filtered: bool
) -> None:
    count = len(rows)
    batch = pa.record_batch(
        {"id": range(count), "text": [text for text, _ in rows], "n": [n for _, n in rows]},
        SCHEMA,
    )
    good: list[dict[str, object]] = []
    bad: list[int] = []
    first: str | None = None
    alone = operator(expression, filtered, "fail")
    for index in range(count):
        try:
            good += [
                r for e in alone.on_batch(0, batch.slice(index, 1)) for r in e.batch.to_pylist()
            ]
        except RowError as error:
            bad.append(index)
            first = first or str(error)
    places = pa.array(positions(0, 0, 2, batch.column("id").to_numpy() + 100))
    kept = operator(expression, filtered, "dlq")
    emitted = list(kept.on_batch(0, batch.append_column("_position", places)))
    found = [row for each in emitted if each.port == 0 for row in each.batch.to_pylist()]
    letters = [row for each in emitted if each.port == 1 for row in each.batch.to_pylist()]
    assert [(row["id"], row["out"]) for row in found] == [(row["id"], row["out"]) for row in good]
    assert [json.loads(each["row"])["id"] for each in letters] == bad
    assert [each["offset"] - 100 for each in letters] == bad
    counters = kept.counters
    assert (counters.rows_in, counters.rows_out, counters.rows_failed) == (
        count, len(good), len(bad)
    )  # fmt: skip
    if bad:
        with pytest.raises(RowError) as raised:
            list(operator(expression, filtered, "fail").on_batch(0, batch))
        assert str(raised.value) == first
        skipping = operator(expression, filtered, "skip")
        assert sum(each.batch.num_rows for each in skipping.on_batch(0, batch)) == len(good)
        assert skipping.counters.rows_failed == len(bad)


def test_only_dead_letters_have_an_output_of_their_own() -> None:
    assert operator(EXPRESSIONS[0], False, "dlq").config.output_schemas[1:] == (DEAD_LETTERS,)
    assert operator(EXPRESSIONS[0], False, "skip").config.output_schemas[1:] == ()
