"""Functions of rows: what they give, and what is said where one cannot be run."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream as ms
from millstream import col
from millstream.dsl.stream import Stream
from millstream.errors import ExpressionTypeError, JobError, MillstreamError, PlanError
from tests.runtime.kit import Bench, event_log, events, put

LOCK = threading.Lock()
ROWS = 10


@pytest.fixture
def rows() -> Stream:
    log = event_log(Bench())
    put(log, "events", events(*range(ROWS)))
    return ms.stream("events", log=log)


def values(stream: Stream, column: str = "value") -> list[Any]:
    found: list[Any] = stream.collect().column(column).to_pylist()
    return found


def locked(rows: pa.RecordBatch) -> pa.RecordBatch:
    with LOCK:
        return rows


def noisy(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.slice(random.randrange(2))


def dated(rows: pa.RecordBatch) -> pa.RecordBatch:
    assert datetime.now(UTC)
    return rows


def later(times: pa.Array) -> pa.Array:
    return pc.add(times, pa.scalar(1, pa.duration("us")))


def test_a_limit_is_of_all_workers_together(rows: Stream) -> None:
    for count in (0, 3, ROWS + 1):
        assert len(values(rows.limit(count))) == min(count, ROWS)
    text = str(rows.limit(3).explain(parallelism=2))
    assert "limit-share ◀ source-events: the first 3 rows of this worker" in text
    assert "exchange to one worker: the limit is over all rows, without a key" in text


def test_a_look_shows_all_columns_and_weights(rows: Stream) -> None:
    seen: list[pa.RecordBatch] = []
    assert len(values(rows.peek(seen.append).select("value"))) == ROWS
    assert [each.schema.names for each in seen] == [["time", "key", "value"]]
    seen.clear()
    rows.limit(1).key_by("key").agg(n=ms.count(), ttl="never").peek(seen.append).collect()
    assert [each.to_pylist() for each in seen] == [[{"key": "a", "n": 1, "_weight": 1}]]


def test_a_function_of_batches_gives_what_arrow_takes(rows: Stream) -> None:
    def frame(batch: pa.RecordBatch) -> pl.DataFrame:
        odd = pl.DataFrame(batch).filter(pl.col("value") % 2 == 1)
        return odd.select(odd="value", key="key")

    mapped = rows.map_batches(frame, {"key": "string", "odd": "int32"})
    assert mapped.schema == pa.schema({"key": pa.string(), "odd": pa.int32()})
    assert values(mapped, "odd") == [1, 3, 5, 7, 9]
    assert "map-batches ◀ source-events: batches through frame: key, odd" in str(mapped.explain())
    assert values(rows.map_batches(lambda batch: batch.slice(1))) == [*range(1, ROWS)]


def test_rows_that_stay_the_same_stay_keyed_and_timed(rows: Stream) -> None:
    keyed = rows.key_by("key").map_batches(lambda batch: batch, same_rows=True)
    hours = keyed.window(ms.tumbling("5s")).agg(n=ms.count())
    assert values(hours, "n") == [5, 5]
    assert rows.map_batches(lambda batch: batch).node.time_column is None
    moved = rows.map_batches(lambda b: b.set_column(0, "time", later(b["time"])), same_rows=True)
    with pytest.raises(JobError, match="gave other values of 'time', a key or the event time"):
        moved.collect()
    fewer = rows.map_batches(lambda batch: batch.slice(1), same_rows=True)
    with pytest.raises(JobError, match=r"gave 0 rows for 1, and was said to give a row for each"):
        fewer.collect()


def test_rows_may_fail_together_of_which_none_fails_alone(rows: Stream) -> None:
    def alone(batch: pa.RecordBatch) -> pa.RecordBatch:
        assert batch.num_rows == 1
        return batch

    with pytest.raises(JobError, match=r"failed .*: function alone raised AssertionError"):
        rows.map_batches(alone).collect()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _: 1 // 0, r"function a lambda raised ZeroDiv.*; the row: .*\"value\": 0"),
        (lambda _: 7, "gave a int, and not what has columns"),
        (lambda batch: batch.select(["key"]), "gave the columns key, and declared are time, key"),
        (lambda batch: batch.set_column(2, "value", batch["key"]), "'value' as string, which is"),
    ],
)
def test_what_a_function_of_batches_does_wrong_is_told(
    rows: Stream, function: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(JobError, match=rf"test_function_verbs\.py:\d+: .*{message}"):
        rows.map_batches(function).collect()


def test_rows_of_a_key_are_combined(rows: Stream) -> None:
    def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return {"time": max(one["time"], other["time"]), "value": one["value"] + other["value"]}

    found = rows.key_by("key").reduce(added)
    assert values(found) == [45]
    assert (found.schema.names, found.node.unique) == (["key", "time", "value"], ("key",))
    assert values(rows.key_by("key").reduce(added, ttl="1d")) == [45]
    windows = rows.key_by("key").window(ms.tumbling("5s")).reduce(added)
    assert values(windows) == [10, 35]
    assert windows.schema.names == ["key", "window_start", "window_end", "time", "value"]
    with pytest.raises(JobError, match="a row of value; a row has time, value"):
        rows.key_by("key").reduce(lambda one, _: {"value": one["value"]}).collect()
    with pytest.raises(JobError, match="gave 1, and not a row such as"):
        rows.key_by("key").reduce(lambda _, __: 1).collect()  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda s: s.limit(-1), PlanError, "limit keeps a number of rows; got -1"),
        (lambda s: s.to_table("key").limit(1), PlanError, r"limit takes rows .*\.top\(n, by=…\)"),
        (lambda s: s.peek("x"), PlanError, "peek takes a function; got 'x'"),
        (lambda s: s.peek(locked), PlanError, "locked reads 'LOCK' .*cannot be sent to workers"),
        (lambda s: s.map_batches(locked), PlanError, "locked reads 'LOCK' "),
        (lambda s: s.map_batches(len, {"n": "itn64"}), ExpressionTypeError, "no type 'itn64'.*int"),
        (lambda s: s.map_batches(len, {}), PlanError, "a schema is e.g. .*; got {}"),
        (lambda s: s.map_batches(len, {1: "int"}), PlanError, "a column is named by a text; got 1"),
        (lambda s: s.map_batches(len, {"_weight": "int"}), PlanError, "cannot be called '_weight'"),
        (
            lambda s: s.to_table("key").map_batches(noisy),
            PlanError,
            "noisy reads 'random', which is of the module random, so that .*taken back",
        ),
        (lambda s: s.to_table("key").map_batches(dated), PlanError, "dated reads the clock"),
        (lambda s: s.reduce(locked), PlanError, "locked reads 'LOCK' "),
        (lambda s: s.select("key").key_by("key").reduce(min), PlanError, "there are none"),
        (lambda s: s.to_table("key").reduce(min), PlanError, "reduce takes rows that are never"),
        (
            lambda s: s.map_batches(len).window(ms.tumbling("1s")),
            PlanError,
            "a window needs event time",
        ),
    ],
)
def test_mistakes_are_told_at_the_users_line(
    rows: Stream, build: Callable[[Stream], object], kind: type[MillstreamError], message: str
) -> None:
    with pytest.raises(kind, match=rf"test_function_verbs\.py:\d+: .*{message}"):
        build(rows)


def test_a_function_may_change_what_is_never_taken_back(rows: Stream) -> None:
    assert len(values(rows.map_batches(noisy))) >= ROWS - 1
    assert values(rows.filter(col("value") > 7).map_batches(dated)) == [8, 9]
