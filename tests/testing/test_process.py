"""Functions of the rows of a key, as a user tests them; and what is said of mistakes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream.dsl.windowed import TimedResult
from millstream.errors import (
    ExpressionTypeError,
    JobError,
    MillstreamError,
    PlanError,
    UnboundedStateWarning,
)
from millstream.log import Log
from millstream.testing.harness import Harness
from tests.runtime.kit import Bench, event_log, events, put

READINGS = pa.schema({"at": pa.timestamp("us", "UTC"), "sensor": pa.string(), "n": pa.int64()})
LOCK = threading.Lock()


class Silent(ms.ProcessFunction):
    """Tells of a sensor that was silent for ten minutes, and how many rows it had."""

    state = {"timer": "timestamp", "rows": "int64"}
    output = {"rows": "int64", "last": pa.list_(pa.int64())}

    def on_row(self, row: dict[str, Any], context: ms.ProcessContext) -> None:
        state = context.state
        if state["timer"] is not None:
            context.clear_timer(state["timer"])
        state["timer"] = context.set_timer(timedelta(minutes=10))
        state["rows"] = (state["rows"] or 0) + 100 // row["n"]

    def on_timer(self, context: ms.ProcessContext) -> dict[str, Any]:
        rows = context.state["rows"]
        context.state.clear()
        return {"rows": rows}


class Counted(ms.ProcessFunction):
    state = {"n": "int32"}
    output = {"n": "int32"}

    def on_row(self, row: dict[str, Any], context: ms.ProcessContext) -> Iterator[dict[str, Any]]:
        context.state["n"] = (context.state["n"] or 0) + 1
        assert context.key == {"key": row["key"]}
        yield {"n": context.state["n"]}


class Given(ms.ProcessFunction):
    """Gives out what it was made with."""

    output = {"value": "int64"}

    def __init__(self, made: Any = None) -> None:
        self.made = made

    def on_row(self, row: Any, context: Any) -> Any:
        return self.made(row, context) if callable(self.made) else self.made


class Locked(Counted):
    def on_row(self, row: Any, context: Any) -> Any:
        with LOCK:
            return None


def reading(time: str, sensor: str = "a", n: int = 100) -> dict[str, Any]:
    return {"at": f"2026-01-01 {time}Z", "sensor": sensor, "n": n}


def silent(log: Log, **options: Any) -> TimedResult:
    readings = ms.stream("readings", lateness="1m", log=log)
    return readings.key_by("sensor").process(Silent, **({"ttl": "never"} | options))


def started(parallelism: int = 2, **options: Any) -> Harness:
    bench = Harness(readings=ms.testing.Topic(READINGS, time="at", partitions=2))
    found = silent(bench.log, **options)
    bench.start([found.to("out"), found.late().to("late")], parallelism=parallelism)
    return bench


def test_timers_come_between_rows_whatever_arrives_first_and_outlive_restarts() -> None:
    bench = started()
    bench.send("readings", [reading("10:00", "b"), reading("10:02"), reading("10:01")], partition=0)
    bench.restart(parallelism=3)
    assert {each["timers"] is None for each in bench.state("process-sensor").to_pylist()} == {False}
    # The timer of 10:12 is cleared by a row that was appended after one of 10:20.
    bench.send("readings", [reading("10:20"), reading("10:19:30", "b")], partition=1)
    bench.send("readings", [reading("10:11")], partition=0)
    bench.advance("2026-01-01 10:30")
    found = [(str(each["at"])[11:16], each["sensor"], each["rows"]) for each in bench.rows("out")]
    assert sorted(found) == [("10:10", "b", 1), ("10:29", "b", 1)]
    bench.advance("2026-01-01 10:31")
    assert bench.rows("out")[-1] | {"at": 0} == {"at": 0, "sensor": "a", "rows": 4, "last": None}
    assert bench.state("process-sensor").num_rows == 0
    bench.send("readings", [reading("10:30")], partition=0)
    assert bench.late_rows == 1
    assert [each["sensor"] for each in bench.rows("late")] == ["a"]


def test_only_keys_that_changed_are_written_again() -> None:
    from millstream.operators.process import Process
    from millstream.plan.compile import compile_plan

    log = Harness(readings=ms.testing.Topic(READINGS, time="at")).log
    (stage,) = compile_plan([silent(log).to("out").node], "job", 1).graph.stages
    operator = stage.operators[0].config.build()
    assert isinstance(operator, Process)
    minute = 60_000_000

    def batch(*sensors: str, at: int) -> pa.RecordBatch:
        times = pa.array([at * minute] * len(sensors), pa.timestamp("us", "UTC"))
        return pa.record_batch([times, [*sensors], [1] * len(sensors)], schema=READINGS)

    assert [*operator.on_batch(0, batch("a", "b", at=1))] == []
    first = operator.snapshot(None, 1)
    assert [*operator.on_batch(0, batch("b", "c", at=2))] == [*operator.on_watermark(2 * minute)]
    second = operator.snapshot(1, 2)
    assert first is not None
    assert second is not None
    assert second.rows is not None
    changed = second.rows.select(["key.sensor", "state.rows", "timers", "waiting"]).to_pylist()
    assert [(each["key.sensor"], each["state.rows"], len(each["waiting"])) for each in changed] == [
        ("a", 100, 0), ("b", 100, 1), ("c", None, 1)
    ]  # fmt: skip
    (emit,) = operator.on_watermark(30 * minute)
    assert emit.batch.num_rows == 3
    third = operator.snapshot(2, 3)
    assert third is not None
    assert third.rows is not None
    assert third.rows["_removed"].to_pylist() == [True] * 3
    again = stage.operators[0].config.build()
    again.restore([first, second], range(4096))
    (emit,) = again.on_watermark(30 * minute)
    assert emit.batch.num_rows == 3
    empty = stage.operators[0].config.build()
    empty.restore([first, second, third], range(4096))
    assert empty.counters.state_keys == 0


def test_state_is_forgotten_after_its_time_to_live() -> None:
    bench = Harness(readings=ms.testing.Topic(READINGS, time="at"))
    stream = ms.stream("readings", log=bench.log).rename({"sensor": "key"}).key_by("key")
    bench.start(stream.process(Counted, ttl="1h").to("out"))
    for time in ("10:00", "10:59", "11:58", "12:58", "13:00"):
        bench.send("readings", [reading(time)])
    bench.advance("2026-01-01 13:30")
    assert [each["n"] for each in bench.rows("out")] == [1, 2, 3, 1, 2]
    assert bench.state("process-key").num_rows == 1
    bench.advance("2026-01-01 14:00:01")
    assert bench.state("process-key").num_rows == 0


@pytest.mark.parametrize("policy", ["skip", "dlq"])
def test_a_row_that_fails_leaves_no_trace(policy: Any, tmp_path: Any) -> None:
    log = Log(tmp_path)
    log.create_topic("readings", READINGS, time="at")
    rows = [(0, 100), (1, 0), (2, 50), (2**61 // 10**6, 1)]
    table = pa.table({"at": [at * 10**6 for at, _ in rows], "n": [n for _, n in rows]})
    put(log, "readings", table.add_column(1, "sensor", [["a"] * 4]).cast(READINGS))
    ms.run(silent(log).to("out"), name="job", until="end", log=log, on_error=policy)
    assert [each["rows"] for each in log.topic("out").to_arrow().to_pylist()] == [3]
    if policy == "dlq":
        letters = log.topic("job.dlq").to_arrow().to_pylist()
        assert [(each["topic"], each["offset"], each["operator"]) for each in letters] == [
            ("readings", 1, "process-sensor"), ("readings", 3, "process-sensor")
        ]  # fmt: skip
        assert "ZeroDivisionError" in letters[0]["error"]


def test_without_event_time_rows_come_as_they_arrive() -> None:
    log = event_log(Bench())
    put(log, "events", events(3, 1, 2))
    stream = ms.stream("events", log=log)
    by_arrival = stream.key_by("key").process(Counted, order="arrival", ttl="never")
    assert by_arrival.collect().to_pylist() == [{"key": "a", "n": each} for each in (1, 2, 3)]
    assert by_arrival.node.time_column is None
    with pytest.raises(PlanError, match="no row is late here, as rows come as they arrive"):
        by_arrival.late()
    text = str(by_arrival.explain())
    assert "rows by key through Counted, as they arrive; keeps n" in text
    assert "not deterministic: rows of a key come as they arrive" in text
    untimed = stream.select("key", "value").key_by("key")
    assert untimed.process(Counted, ttl="never").collect().num_rows == 3
    with pytest.raises(JobError, match="Given: a timer needs event time"):
        untimed.process(Given(lambda _, context: context.set_timer(timedelta(1)))).collect()
    assert "in the order of event time" in str(stream.key_by("key").process(Given).explain())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda row, _: 1 // row["value"], r"\(at events/0, offset 0\): Given: ZeroDiv.*\"value\""),
        (7, "Given: it gave 7, and not a row such as"),
        ("text", "it gave 'text', and not a row"),
        ([7], "it gave 7, and not a row"),
        ({"value_": 7}, "it gave the column 'value_'; did you mean 'value'"),
        ({"value": "x"}, "'value' is int64, and was given 'x'"),
        (lambda _, context: context.state["x"], "KeyError: .*no state 'x'"),
        (lambda _, context: context.set_timer(7), "a time with a zone, or a timedelta; got 7"),
    ],
)
def test_what_a_function_does_wrong_is_told_with_the_row(made: Any, message: str) -> None:
    log = event_log(Bench())
    put(log, "events", events(1, 2))
    stream = ms.stream("events", log=log).key_by("key").process(Given(made))
    with pytest.raises(JobError, match=rf"test_process\.py:\d+: .*{message}"):
        stream.collect()


class NoRow(ms.ProcessFunction):
    pass


class Wrong(Counted):
    output = {"n": "itn"}


class Key(Counted):
    output = {"key": "int"}


class Unknown(Counted):
    state = {"_stamp": "int"}


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda s: s.process(Counted), PlanError, "process keeps state by key; name it before"),
        (lambda s: s.key_by("key").process(len), PlanError, "takes a ms.ProcessFunction; got <b"),
        (lambda s: s.key_by("key").process(NoRow), PlanError, r"NoRow has no on_row\(self, row"),
        (lambda s: s.key_by("key").process(Locked), PlanError, "Locked reads 'LOCK' .*workers"),
        (lambda s: s.key_by("key").process(Given(LOCK)), PlanError, "Given reads self.made"),
        (lambda s: s.key_by("key").process(Wrong), ExpressionTypeError, "no type 'itn'"),
        (lambda s: s.key_by("key").process(Key), PlanError, "two columns would be called 'key'"),
        (lambda s: s.key_by("key").process(Unknown), PlanError, "cannot be called '_stamp'"),
        (lambda s: s.key_by("key").process(Counted, order="x"), PlanError, "order is .*; got 'x'"),
        (lambda s: s.to_table("key").process(Counted), PlanError, "process takes rows that are"),
        (
            lambda s: s.select("key").key_by("key").process(Counted, ttl="1h"),
            PlanError,
            "a TTL needs event time",
        ),
        (
            lambda s: s.select("key").key_by("key").process(Silent),
            PlanError,
            "Silent.on_timer needs event time",
        ),
        (
            lambda s: s.select("key").key_by("key").process(Counted, order="time"),
            PlanError,
            'order="time" needs event time',
        ),
        (lambda s: s.key_by("key").process(Counted), UnboundedStateWarning, "state of every key"),
    ],
)
def test_mistakes_are_told_at_the_users_line(
    build: Callable[[ms.Stream], object], kind: type[MillstreamError], message: str
) -> None:
    stream = ms.stream("events", log=event_log(Bench()))
    with pytest.raises(kind, match=rf"test_process\.py:\d+: .*{message}"):
        build(stream)
