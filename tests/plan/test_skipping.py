"""What a source is told of the filters on its rows, and what it is not told."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from millstream import col
from millstream.dsl.expressions import Expression
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.plan import nodes
from millstream.plan.compile import compile_plan
from millstream.plan.explain import explain_job
from millstream.plan.rewrites import sinks_to_physical
from millstream.plan.text import predicate_text
from millstream.plan.walk import in_order
from tests.dsl.known_topics import KnownTopics

SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),
        ("n", pa.int32()),
        ("x", pa.float64()),
        ("text", pa.string()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.int64())),
    ]
)
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def things(log: KnownTopics) -> Stream:
    log.add("things", SCHEMA, time="at")
    return stream("things", log=log)


def told(*streams: Stream) -> str | None:
    sinks = [nodes.Sink(each.node, f"sink{i}") for i, each in enumerate(streams)]
    sources = [
        each for each in in_order(sinks_to_physical(sinks)) if isinstance(each, nodes.StreamSource)
    ]
    (source,) = sources
    return None if source.where is None else predicate_text(source.where)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (col("n") > 5, "n > 5"),
        (col("n") > 100_000_000_000, "n > 100000000000"),
        (col("n") <= 5, "n ≤ 5"),
        (col("at") >= NOON, "at ≥ 2024-01-01 12:00"),
        ((col("text") == "a") & ~(col("x") < 0.5), "text = 'a' and not x < 0.5"),
        ((col("n") > 5) & (col("n") + col("x") > 3), "n > 5 and …"),
        (col("text").is_null() | col("flag"), "text is null or flag = True"),
        (col("n").is_in([1, 2]), "n in 1, 2"),
        ((col("n") > 5) | (col("n") + 1 > 3), None),
        (col("n") + 1 > 3, None),
        (col("x").is_in([1.0]), None),
        (col("text").str.starts_with("a"), None),
        # It may fail on a row that is passed.
        ((col("n") > 5) & (col("text").cast(pa.int64()) > 3), None),
    ],
)
def test_what_is_known_of_a_filter(things: Stream, condition: Expression, text: str | None) -> None:
    found = told(things.filter(condition))
    assert (found is None) if text is None else (found is not None and text in found)


def test_all_readers_must_filter(things: Stream) -> None:
    one, other = things.filter(col("n") > 5), things.filter(col("x") < 0)
    assert told(one, other) == "n > 5 or x < 0.0"
    assert told(one, things) is None
    assert told(one, things.filter(col("n") + 1 > 5)) is None


def test_filters_behind_other_steps_count(things: Stream) -> None:
    projected = things.select("at", twice=col("n"), y=col("x") + 1)
    assert told(projected.filter(col("twice") > 5)) == "n > 5"


def test_event_time_of_another_type_is_not_compared(log: KnownTopics) -> None:
    log.add("naive", pa.schema([("at", pa.timestamp("ns")), ("n", pa.int64())]), time="at")
    assert told(stream("naive", log=log).filter(col("at") > NOON)) is None


def test_it_is_explained_and_travels(things: Stream) -> None:
    sinks = [nodes.Sink(things.filter(col("n") > 5).node, "out")]
    assert "; passes frames without n > 5" in str(explain_job(sinks, "job", 1))
    graph = compile_plan(sinks, "job", 1).graph
    source = graph.stages[0].sources[0]
    assert str(pickle.loads(pickle.dumps(source)).where) == str(source.where)
