"""The harness drives jobs as they are: by rows, by event time, by the clock, over restarts."""

from __future__ import annotations

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.errors import (
    JobError,
    OptionError,
    PlanError,
    UnknownColumnError,
    UnknownTopicError,
)
from millstream.testing import Harness, Topic

CLICKS = pa.schema([("at", pa.timestamp("ms", "UTC")), ("page", pa.string()), ("n", pa.int64())])
PAGES = pa.schema([("page", pa.string()), ("owner", pa.string())])


def harness(*, partitions: int = 1) -> Harness:
    return Harness(
        clicks=Topic(CLICKS, time="at", partitions=partitions),
        pages=Topic(PAGES, key="page", table=True),
    )


def hours() -> list[ms.Sink]:
    counted = ms.stream("clicks", time="at").key_by("page").window(ms.tumbling("1h"))
    found = counted.agg(clicks=ms.count())
    return [found.to("hours"), found.late().to("late")]


def click(time: str, page: str = "a", **more: object) -> dict[str, object]:
    return {"at": f"2026-01-01 {time}", "page": page, **more}


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_windows_close_when_event_time_is_moved(parallelism: int) -> None:
    bench = harness(partitions=2)
    bench.start(hours, parallelism=parallelism)
    bench.send("clicks", [click("10:05"), click("10:59:59.999"), click("11:00")], partition=1)
    assert bench.rows("hours") == []
    bench.advance("2026-01-01 11:00")
    assert bench.rows("hours", "page", "clicks") == [{"page": "a", "clicks": 2}]
    bench.end()
    assert bench.rows("hours", "clicks") == [{"clicks": 2}, {"clicks": 1}]


def test_late_rows_are_counted_over_restarts_and_come_out() -> None:
    bench = harness()
    bench.start(hours)
    bench.advance("2026-01-01 11:00Z")
    bench.send("clicks", [click("10:30")])
    assert bench.late_rows == 1
    bench.restart()
    bench.send("clicks", [click("10:31")])
    assert bench.late_rows == 2
    assert [each["page"] for each in bench.new_rows("late")] == ["a", "a"]
    assert bench.new_rows("late") == []


def test_state_outlives_a_restart_at_another_parallelism() -> None:
    bench = harness(partitions=2)
    bench.start(hours, parallelism=2)
    pages = [f"page {number}" for number in range(20)]
    bench.send("clicks", [click("10:00", page) for page in pages], partition=0)
    before = bench.state("window-page")
    assert sorted(before["key.page"].to_pylist()) == sorted(pages)
    bench.restart(parallelism=3)
    bench.send("clicks", [click("10:01", page) for page in pages[:5]], partition=1)
    bench.advance("2026-01-01 11:00")
    found = {each["page"]: each["clicks"] for each in bench.rows("hours")}
    assert found == {page: 2 if page in pages[:5] else 1 for page in pages}


def test_a_table_is_what_was_sent_less_what_was_deleted() -> None:
    bench = harness()
    bench.send("pages", [{"page": "a", "owner": "Ann"}, {"page": "b", "owner": "Bob"}])
    bench.start(lambda: ms.stream("clicks").join(ms.table("pages"), on="page").to("owned"))
    bench.delete("pages", [{"page": "b"}])
    bench.send("clicks", [click("10:00", "a"), click("10:00", "b")])
    assert bench.rows("owned", "owner") == [{"owner": "Ann"}]


def test_a_running_aggregate_is_seen_as_a_table() -> None:
    bench = harness()
    counted = ms.stream("clicks", log=bench.log).key_by("page").agg(clicks=ms.count(), ttl="never")
    bench.start(counted.to("counts", mode="upsert"))
    bench.send("clicks", [click("10:00"), click("10:00"), click("10:00", "b")])
    bench.send("clicks", [click("10:01")])
    assert bench.latest("counts") == [{"page": "b", "clicks": 1}, {"page": "a", "clicks": 3}]


def test_idleness_is_told_by_the_clock() -> None:
    bench = harness(partitions=2)
    stream = ms.stream("clicks", time="at", idle_timeout="30s", log=bench.log)
    counted = stream.key_by("page").window(ms.tumbling("1h")).agg(clicks=ms.count())
    bench.start(counted.to("hours"))
    bench.send("clicks", [click("10:00")], partition=0)
    bench.send("clicks", [click("11:00")], partition=0)
    assert bench.rows("hours") == []  # the other partition may still have older rows
    bench.wait("31s")
    bench.send("clicks", [click("11:00:01")], partition=0)
    assert bench.rows("hours", "clicks") == [{"clicks": 1}]


def test_rows_may_be_columns_of_arrow() -> None:
    bench = harness()
    bench.start(lambda: ms.stream("clicks").filter(col("n") > 1).to("many"))
    rows = pa.table({"at": [0, 0], "page": ["a", "b"], "n": [1, 2]}).cast(CLICKS)
    bench.send("clicks", rows)
    bench.send("clicks", rows.to_batches()[0])
    assert bench.table("many", "page")["page"].to_pylist() == ["b", "b"]


def test_the_same_steps_give_the_same_rows_in_the_same_order() -> None:
    def played() -> pa.Table:
        bench = harness(partitions=2)
        bench.start(hours, parallelism=2)
        for number in range(6):
            bench.send(
                "clicks",
                [click(f"{10 + number}:00", f"page {n}") for n in range(9)],
                partition=number % 2,
            )
        bench.end()
        return bench.table("hours")

    assert played().equals(played())


class TestMistakes:
    def test_an_unknown_column_is_named_with_the_nearest(self) -> None:
        with pytest.raises(UnknownColumnError, match=r"'clicks' has no column 'pag'.*'page'"):
            harness().send("clicks", [{"pag": "a"}])

    def test_an_unknown_topic_is_named_with_the_nearest(self) -> None:
        bench = harness()
        with pytest.raises(UnknownTopicError, match=r"test_harness.py:\d+: .*'click'.*'clicks'"):
            bench.send("click", [])
        with pytest.raises(UnknownTopicError, match=r"no topic 'hours'"):
            bench.rows("hours")

    def test_a_value_of_another_type_is_named_with_its_column(self) -> None:
        with pytest.raises(OptionError, match="column 'n' of topic 'clicks' is int64"):
            harness().send("clicks", [{"n": "many"}])

    @pytest.mark.parametrize("time", ["tomorrow", "2026-13-01"])
    def test_what_is_no_time_is_told(self, time: str) -> None:
        bench = harness()
        with pytest.raises(OptionError, match=f"not a time: '{time}'"):
            bench.send("clicks", [{"at": time}])
        bench.start(hours)
        with pytest.raises(OptionError, match=f"not a time: '{time}'"):
            bench.advance(time)

    def test_nothing_runs_before_start_or_twice(self) -> None:
        bench = harness()
        with pytest.raises(PlanError, match=r"test_harness.py:\d+: no job runs; call start first"):
            bench.advance("2026-01-01")
        bench.start(hours)
        with pytest.raises(PlanError, match=r"test_harness.py:\d+: a job runs already"):
            bench.start(hours)

    def test_what_is_no_job_is_told(self) -> None:
        with pytest.raises(PlanError, match=r"test_harness.py:\d+: start takes sinks"):
            harness().start(lambda: [])

    def test_an_unknown_operator_is_named_with_the_nearest(self) -> None:
        bench = harness()
        bench.start(hours)
        with pytest.raises(OptionError, match=r"no operator 'window-pag'.*'window-page'"):
            bench.state("window-pag")

    def test_a_job_that_fails_raises_what_it_would(self) -> None:
        bench = harness()
        bench.start(lambda: ms.stream("clicks").select(n=col("page").cast("int")).to("numbers"))
        with pytest.raises(JobError, match="'seven'"):
            bench.send("clicks", [click("10:00", "seven")])
