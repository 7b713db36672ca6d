"""Windows with time moved by hand: what is given out when, and what is late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream.testing import Harness, Topic
from tests.runtime.kit import TIME

SCHEMA = pa.schema({"at": TIME, "key": pa.string(), "value": pa.int64()})


def at(second: int, value: int = 1, key: str = "a") -> dict[str, Any]:
    return {"at": f"2026-01-01 00:{second // 60:02}:{second % 60:02}", "key": key, "value": value}


def started(build: Callable[[ms.Stream], Any], *, parallelism: int = 1) -> Harness:
    harness = Harness(rows=Topic(SCHEMA, "at", partitions=2))
    harness.start(lambda: build(ms.stream("rows").key_by("key")), parallelism=parallelism)
    return harness


def test_windows_give_out_changes_every_interval_and_nothing_between() -> None:
    def build(rows: ms.Stream) -> ms.Sink:
        minutes = rows.window(ms.tumbling("1m"), emit=ms.every("20s"))
        return minutes.agg(total=ms.sum("value")).to("totals", mode="changelog")

    harness = started(build)
    harness.advance("2026-01-01 00:00:00")
    for second in (1, 5, 19):
        harness.send("rows", [at(second)])
    assert harness.rows("totals") == []
    harness.advance("2026-01-01 00:00:20")
    assert harness.new_rows("totals")[0]["total"] == 3
    harness.send("rows", [at(39)])
    harness.restart(parallelism=2)
    harness.advance("2026-01-01 00:00:59")
    found = [(each["total"], each["weight"]) for each in harness.new_rows("totals")]
    assert found == [(3, -1), (4, 1)]
    harness.advance("2026-01-01 00:01:20")
    assert harness.new_rows("totals") == []
    assert harness.state("window-key").num_rows == 0


def test_the_global_window_is_over_when_its_input_ends() -> None:
    def build(rows: ms.Stream) -> list[ms.Sink]:
        totals = rows.window(ms.global_window()).agg(total=ms.sum("value"))
        return [totals.to("totals"), totals.late().to("late")]

    harness = started(build)
    harness.send("rows", [at(500, 5), at(1, 2), at(20, 3, "b")])
    assert harness.rows("totals") == []
    harness.end()
    assert sorted(tuple(each.values()) for each in harness.rows("totals")) == [("a", 7), ("b", 3)]
    harness.start(lambda: build(ms.stream("rows").key_by("key")))
    harness.send("rows", [at(600)])
    harness.end()
    assert len(harness.rows("totals")) == 2
    assert [each["value"] for each in harness.rows("late")] == [1]


def test_the_global_window_of_changes_goes_on_after_the_end() -> None:
    def build(rows: ms.Stream) -> ms.Sink:
        totals = rows.window(ms.global_window(), emit=ms.every("1h")).agg(total=ms.sum("value"))
        return totals.to("totals", mode="upsert")

    harness = started(build)
    for _ in range(2):
        harness.send("rows", [at(1, 5)])
        harness.end()
        harness.start(lambda: build(ms.stream("rows").key_by("key")), parallelism=2)
    assert harness.latest("totals") == [{"key": "a", "total": 10}]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_rows_that_come_when_their_key_may_be_forgotten_are_to_be_had(parallelism: int) -> None:
    def build(rows: ms.Stream) -> list[ms.Sink]:
        first = rows.dedup(within="10s")
        totals = rows.agg(ttl="10s", total=ms.sum(ms.col("value") * 2))
        late = totals.late()
        return [
            first.late().select("value", where=ms.lit("dedup")).to("late"),
            late.select("value", where=ms.lit("agg")).to("late"),
            late.window(ms.tumbling("1m"), allowed_lateness="1h").agg(n=ms.count()).to("recounted"),
        ]

    harness = started(build, parallelism=parallelism)
    harness.send("rows", [at(100, 1), at(91, 2), at(90, 3), at(1, 4, "b")], partition=0)
    harness.end()
    found = sorted((each["where"], each["value"]) for each in harness.rows("late"))
    assert found == [("agg", 3), ("agg", 4), ("dedup", 3), ("dedup", 4)]
    assert sum(each["n"] for each in harness.rows("recounted")) == 2
    assert harness.late_rows == 4


@pytest.mark.parametrize("parallelism", [1, 2])
def test_each_row_has_a_window_of_the_rows_before_it(parallelism: int) -> None:
    def build(rows: ms.Stream) -> list[ms.Sink]:
        sums = rows.window(ms.sliding("10s")).agg(total=ms.sum(ms.col("value") + 0), n=ms.count())
        return [sums.select("value", "total", "n").to("sums"), sums.late().to("late")]

    harness = started(build, parallelism=parallelism)
    harness.send("rows", [at(1, 1), at(2, 20, "b"), at(11, 3), at(11, 4)], partition=0)
    assert harness.rows("sums") == []
    harness.advance("2026-01-01 00:00:11")
    assert [each["total"] for each in harness.new_rows("sums")] in ([1, 20], [20, 1])
    harness.restart(parallelism=3 - parallelism)
    harness.send("rows", [at(10, 7)], partition=0)
    harness.advance("2026-01-01 00:00:12")
    assert sorted(tuple(each.values()) for each in harness.new_rows("sums")) == [
        (3, 8, 3),
        (4, 8, 3),
    ]
    assert [each["value"] for each in harness.rows("late")] == [7]
    harness.advance("2026-01-01 00:00:22")
    assert harness.state("window-key")["row.value"].to_pylist() == []
    harness.end()
    assert harness.late_rows == 1


def test_windows_of_rows_wait_until_they_are_full_also_over_the_end() -> None:
    def build(rows: ms.Stream) -> ms.Sink:
        return rows.window(ms.counting(3)).agg(values=ms.collect_list("value")).to("threes")

    harness = started(build)
    for first in (0, 4, 8):
        rows = [at(first, first), at(first, first + 1), at(first + 2, first + 2)]
        harness.send("rows", [*rows, at(first + 2, first + 3, "b")], partition=0)
        harness.end()
        harness.start(lambda: build(ms.stream("rows").key_by("key")), parallelism=2)
    found = sorted((each["key"], each["values"]) for each in harness.rows("threes"))
    of_a = [("a", [0, 1, 2]), ("a", [4, 5, 6]), ("a", [8, 9, 10])]
    assert found == [*of_a, ("b", [3, 7, 11])]
    assert harness.state("window-key").num_rows == 0
