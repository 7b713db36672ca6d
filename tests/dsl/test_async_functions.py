"""Async functions, called by the event loop of a real host: bounds, order, failures, the cache."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.dsl.stream import Stream
from millstream.errors import ExpressionTypeError, JobError, MillstreamError, OptionError, PlanError
from tests.runtime.kit import Bench, event_log, events, put

LOCK = threading.Lock()
ROWS = 30
CALLS: list[int] = []
FLYING = {"now": 0, "most": 0}


@pytest.fixture
def rows() -> Stream:
    CALLS.clear()
    log = event_log(Bench())
    put(log, "events", events(*range(ROWS)))
    return ms.stream("events", log=log)


async def called(n: int) -> int:
    CALLS.append(n)
    FLYING["now"] += 1
    FLYING["most"] = max(FLYING["most"], FLYING["now"])
    await asyncio.sleep(0.002 if n % 3 == 0 else 0)
    FLYING["now"] -= 1
    return 10 * n


def test_rows_stay_in_order_with_no_more_calls_at_a_time_than_were_allowed(rows: Stream) -> None:
    tenfold = ms.udf(called, returns="int64", concurrency=4)
    asked = rows.select(n=tenfold(col("value") + 1) - 10, text=tenfold(col("value")).cast("str"))
    found = asked.collect().to_pydict()
    assert found["n"] == [10 * n for n in range(ROWS)]
    assert found["text"] == [str(10 * n) for n in range(ROWS)]
    assert len(CALLS) == 2 * ROWS
    assert 4 <= FLYING["most"] <= 8  # there are two columns
    text = str(asked.explain())
    assert "async calls: called(__async_0), 4 at a time; called(value), 4 at a time" in text


def test_a_call_of_a_call_and_a_filter_by_one(rows: Stream) -> None:
    tenfold = ms.udf(called, returns="int64")
    kept = rows.filter(tenfold(tenfold(col("value"))) >= 100 * (ROWS - 2)).select("value")
    assert kept.collect().to_pydict() == {"value": [28, 29]}
    CALLS.clear()
    unused = rows.with_columns(n=tenfold(col("value"))).select("value")
    assert unused.collect().num_rows == ROWS
    assert CALLS == []
    by_key = rows.key_by("key").agg(most=ms.max(tenfold(col("value"))), ttl="never")
    assert by_key.collect()["most"].to_pylist() == [290]


def test_what_fails_is_called_again_so_often(rows: Stream) -> None:
    async def flaky(n: int) -> int:
        CALLS.append(n)
        if CALLS.count(n) < 3:
            raise ConnectionError
        return n

    answered = ms.udf(flaky, returns="int64", attempts=3, backoff="1ms")
    few = rows.filter(col("value") < 3)
    assert few.select(n=answered(col("value"))).collect()["n"].to_pylist() == [0, 1, 2]
    CALLS.clear()
    failing = ms.udf(flaky, returns="int64", attempts=2, backoff="1ms")
    with pytest.raises(JobError, match=r"test_async_functions\.py:\d+: .*ConnectionError.*the row"):
        few.select(n=failing(col("value"))).collect()
    assert len(CALLS) == 6


def test_an_answer_that_does_not_come_fails_the_row(rows: Stream) -> None:
    async def silent(n: int) -> int:
        await asyncio.sleep(0 if n else 60)
        return n

    waited = ms.udf(silent, returns="int64", timeout="20ms")
    with pytest.raises(JobError, match=r'silent: no answer within 0.02 s; the row: .*"value": 0'):
        rows.select(n=waited(col("value"))).collect()


def test_answers_are_kept_and_nulls_are_not_asked_for(rows: Stream) -> None:
    kept = ms.udf(called, returns="int64", cache=2)
    third = ms.when(col("value") != 4).then(col("value") % 2)
    answers = rows.select(n=kept(third), again=col("value")).collect()["n"].to_pylist()
    assert answers == [None if n == 4 else 10 * (n % 2) for n in range(ROWS)]
    assert sorted(CALLS) == [0, 1]

    async def of_none(n: int | None) -> int:
        return -1 if n is None else n

    nulls = ms.udf(of_none, returns="int64", skip_nulls=False)
    assert rows.select(n=nulls(third)).collect()["n"].to_pylist()[3:6] == [1, -1, 1]


def test_an_answer_of_another_type_fails_its_row(rows: Stream) -> None:
    async def wrong(n: int) -> Any:
        return "x" if n == 7 else n

    with pytest.raises(JobError, match=r'wrong gave what is no int64: .*"value": 7'):
        rows.select(n=ms.udf(wrong, returns="int64")(col("value"))).collect()


async def locked(n: int) -> int:
    with LOCK:
        return n


async def untyped(n):  # type: ignore[no-untyped-def]
    return n


def plain(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda _: ms.udf(plain, cache=1), OptionError, "cache is for an async def"),
        (lambda _: ms.udf(called, batch=True), OptionError, "called row by row"),
        (lambda _: ms.udf(called, concurrency=0), OptionError, "at least 1; got 0"),
        (lambda _: ms.udf(called, timeout="0s"), OptionError, "nothing answers in no time"),
        (lambda _: ms.udf(called, timeout="soon"), OptionError, "soon"),
        (lambda s: s.select(n=ms.udf(untyped)(col("value"))), ExpressionTypeError, "the type that"),
        (lambda s: s.select(n=ms.udf(locked)(col("value"))), PlanError, "locked .*reads 'LOCK'"),
        (
            lambda s: s.to_table("key").select(n=ms.udf(called)(col("value"))),
            PlanError,
            "called, which may answer otherwise when a row is taken back, takes rows that are",
        ),
    ],
)
def test_mistakes_are_told_at_the_users_line(
    rows: Stream, build: Callable[[Stream], object], kind: type[MillstreamError], message: str
) -> None:
    with pytest.raises(kind, match=rf"test_async_functions\.py:\d+: .*{message}"):
        build(rows)


def test_a_test_of_a_job_calls_them(rows: Stream) -> None:
    harness = ms.testing.Harness(asked=ms.testing.Topic(pa.schema({"n": pa.int64()})))
    harness.start(lambda: ms.stream("asked").select(n=ms.udf(called)(col("n"))).to("answers"))
    harness.send("asked", [{"n": 1}, {"n": 2}])
    assert harness.rows("answers") == [{"n": 10}, {"n": 20}]
    harness.end()
