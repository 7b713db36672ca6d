"""A worker: what it reads when, what it holds back, what it reports."""

from __future__ import annotations

from itertools import pairwise

import pytest

import millstream as ms
from millstream import col
from millstream.errors import CheckpointError
from millstream.operators import match_index
from tests.runtime.kit import (
    EVENTS,
    NAMES,
    SECOND_US,
    Bench,
    Played,
    event_log,
    events,
    put,
    put_names,
    rows_of,
    run,
)


def windows(stream: ms.Stream, size: str = "10s") -> ms.TimedResult:
    return stream.key_by("key").window(ms.tumbling(size)).agg(n=ms.count())


class TestTables:
    def test_a_table_is_read_to_its_bound_before_the_first_row_of_a_stream(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        put_names(log, "names", a="old", b="other")
        put_names(log, "names", a="new")
        stream = ms.stream("events", log=log).join(ms.table("names", key="key", log=log), on="key")
        run(bench, [stream.to("out")], batch_rows=1)
        assert rows_of(log, "out", "value", "name") == [(0, "new"), (1, "new")]

    @pytest.mark.parametrize("parallelism", [1, 2])
    def test_tables_in_later_stages_and_several_tables(self, parallelism: int) -> None:
        bench = Bench()
        log = event_log(bench, partitions=2)
        for number in range(20):
            key = "abc"[number % 3]
            put(log, "events", events(number, key=key, first=number), number % 2)
        put_names(log, "names", a="A", b="B")
        put_names(log, "others", b="bee")
        stream = ms.stream("events", lateness="1m", log=log)
        names = ms.table("names", key="key", log=log)
        others = ms.table("others", key="key", log=log).rename({"name": "other"})
        joined = windows(stream.join(names, on="key").drop("name")).join(others, on="key")
        again = joined.join(names, on="key", how="left")
        run(bench, [again.to("out")], parallelism=parallelism, batch_rows=1)
        assert rows_of(log, "out", "key", "n", "other", "name") == [
            ("b", 3, "bee", "B"),
            ("b", 4, "bee", "B"),
        ]

    def test_a_row_with_many_matches_goes_out_piece_by_piece(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(match_index, "OUTPUT_ROWS_MAX", 2)
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2, key="same"))
        put_names(log, "names", **dict.fromkeys("abcdefg", "same"), other="other")
        owners = ms.table("names", key="key", log=log).rename({"key": "owner"})
        stream = ms.stream("events", log=log).join(owners, left_on="key", right_on="name")
        played = Played(bench, [stream.to("out")])
        written = [0]
        for _ in range(100):
            progressed = played.step()
            written.append(played.workers[0].status().rows_written)
            assert progressed or written[-1] == 14, "a rest is no reason to wait"
        assert max(later - earlier for earlier, later in pairwise(written)) == 2
        played.finish()
        found = rows_of(log, "out", "value", "owner")
        assert found == [(value, owner) for value in range(2) for owner in "abcdefg"]

    def test_windows_do_not_close_while_a_table_loads_that_their_results_are_joined_with(
        self,
    ) -> None:
        # Worker 0 has loaded its tables and tells worker 1, which has not, of a watermark.
        bench = Bench()
        log = event_log(bench, partitions=2)
        for key in "abcdefgh":
            put(log, "events", events(1, key=key), 0)
        put_names(log, "names", **dict.fromkeys("abcdefgh", "old"))
        names = ms.table("names", key="key", log=log)
        stream = ms.stream("events", idle_timeout="1s", log=log)
        sinks = [windows(stream).join(names, on="key").to("out")]
        first = Played(bench, sinks, parallelism=2, until=None)
        first.settle()
        first.checkpoint()
        first.coordinator.close()
        put_names(log, "names", **dict.fromkeys("abcdefgh", "new"))
        put(log, "events", events(100, key="a"), 0)
        second = Played(bench, sinks, parallelism=2)
        second.settle([0])
        second.settle([1])
        second.finish()
        assert {row[1] for row in rows_of(log, "out", "key", "name")} == {"new"}

    def test_a_barrier_passes_while_tables_load(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        put_names(log, "names", a="A", b="B", c="C")
        names = ms.table("names", key="key", log=log)
        sinks = [ms.stream("events", log=log).join(names, on="key").to("out")]
        played = Played(bench, sinks, batch_rows=1)
        played.step()
        played.tick(played.coordinator.options.checkpoint_interval_us + 1)
        while not played.coordinator.checkpoints:
            played.tick(played.coordinator.options.checkpoint_interval_us + 1)
            played.step()
        assert played.coordinator.positions()["table-names", 0] < 3
        played.coordinator.close()
        again = Played(bench, sinks, batch_rows=1)
        again.finish()
        assert again.coordinator.restored is not None
        assert rows_of(log, "out", "value", "name") == [(0, "A"), (1, "A")]

    def test_a_drained_job_whose_table_is_loading_comes_to_its_end(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        put_names(log, "names", a="A", b="B", c="C")
        names = ms.table("names", key="key", log=log)
        stream = ms.stream("events", log=log).join(names, on="key")
        played = Played(bench, [stream.to("out")], until=None, batch_rows=1)
        played.step()
        played.coordinator.request_drain()
        played.finish()
        assert played.coordinator.finished


class TestFairness:
    def test_a_stream_without_time_is_read_beside_one_with_time(self) -> None:
        bench = Bench()
        log = event_log(bench)
        log.create_topic("others", EVENTS)
        put(log, "events", events(*range(50)))
        put(log, "others", events(*range(50)))
        timed = ms.stream("events", log=log)
        untimed = ms.stream("others", time=None, log=log)
        played = Played(bench, [windows(timed).to("w"), untimed.to("copy")], batch_rows=1)
        for _ in range(40):
            played.step()
        read = played.workers[0].positions()
        assert read["source-events"][0].offset > 10
        assert read["source-others"][0].offset > 10

    def test_two_streams_without_time_are_read_beside_one_with_time(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(*range(50)))
        sinks = [windows(ms.stream("events", log=log)).to("w")]
        for name in ("one", "two"):
            log.create_topic(name, EVENTS)
            put(log, name, events(*range(50)))
            sinks.append(ms.stream(name, time=None, log=log).to(f"copy of {name}"[-3:]))
        played = Played(bench, sinks, batch_rows=1)
        for _ in range(60):
            played.step()
        read = played.workers[0].positions()
        assert all(partitions[0].offset > 10 for partitions in read.values())

    def test_a_table_that_changes_all_the_time_keeps_no_other_from_loading(self) -> None:
        bench = Bench()
        log = event_log(bench, partitions=2)
        put(log, "events", events(1), 0)
        put_names(log, "names", a="A")
        put_names(log, "others", a="A")
        names, others = (ms.table(each, key="key", log=log) for each in ("names", "others"))
        counted = windows(ms.stream("events", log=log).join(names, on="key"))
        joined = counted.join(others, on="key")
        played = Played(bench, [joined.to("out")], parallelism=2, until=None, batch_rows=1)
        for _ in range(30):
            put_names(log, "names", a="B")
            played.step()
        assert played.workers[0].positions()["source-events"][0].offset == 1


class TestEventTime:
    def test_an_empty_table_does_not_hold_back_the_time_of_a_busy_stream(self) -> None:
        bench = Bench()
        log = event_log(bench)
        log.create_topic("names", NAMES, key=("key",), table=True)
        put(log, "events", events(*range(0, 1000, 10)))
        names = ms.table("names", key="key", log=log)
        joined = ms.stream("events", log=log).join(names, on="key", how="left")
        played = Played(bench, [windows(joined).to("w")], batch_rows=1)
        for _ in range(50):
            played.step()
        operator = played.workers[0].counters()["window-key"]
        assert operator.rows_in > 20
        assert operator.state_keys < 5

    def test_a_stream_without_rows_does_not_hold_back_the_time_of_a_busy_one(self) -> None:
        bench = Bench()
        log = event_log(bench)
        log.create_topic("others", EVENTS, time="time")
        put(log, "events", events(*range(0, 1000, 10)))
        both = ms.stream("events", log=log).union(ms.stream("others", log=log))
        played = Played(bench, [windows(both).to("w")], batch_rows=1)
        for _ in range(50):
            played.step()
        assert played.workers[0].counters()["window-key"].state_keys < 5

    def test_a_worker_without_partitions_has_no_watermark_to_show(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(7))
        sinks = [windows(ms.stream("events", log=log)).to("w")]
        played = Played(bench, sinks, parallelism=3, until=None)
        played.settle()
        statuses = [each.status() for each in played.workers]
        assert [each.watermark_us for each in statuses] == [7 * SECOND_US, None, None]
        assert [each.holding for each in statuses] == ["events/0", None, None]
        assert sum(each.rows_read for each in statuses) == 1


class TestRestore:
    def test_state_that_does_not_fit_the_operator_is_refused_by_name(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1))
        stream = ms.stream("events", log=log).key_by("key")

        def job(size: str, topic: str, **aggregates: ms.Aggregate) -> list[ms.Sink]:
            return [stream.window(ms.tumbling(size)).agg(**aggregates).named("mine").to(topic)]

        first = Played(bench, job("1h", "w", n=ms.count()), until=None)
        first.settle()
        first.checkpoint()
        first.coordinator.close()
        with pytest.raises(CheckpointError, match="of 3600000000 µs, from 0 µs, and are of 72"):
            Played(bench, job("2h", "w", n=ms.count()))
        more = job("1h", "totals", n=ms.count(), total=ms.sum("value"))
        with pytest.raises(CheckpointError, match="state of operator 'mine' in checkpoint"):
            Played(bench, more)
        other = [stream.filter(col("value") > 0).named("mine").to("f")]
        with pytest.raises(CheckpointError, match="does not fit the operator as it is now"):
            Played(bench, other)


class TestTime:
    def test_a_worker_waits_for_rows_or_for_room_at_another_one(self) -> None:
        bench = Bench()
        log = event_log(bench, partitions=2)
        for number in range(20):
            put(log, "events", events(number, key="abcdef"[number % 6]), number % 2)
        sinks = [windows(ms.stream("events", lateness="1m", log=log)).to("out")]
        played = Played(bench, sinks, parallelism=2, batch_rows=1, until=None)
        worker = played.workers[0]
        played.settle([0])
        put(log, "events", events(30), 0)
        played.settle([0])
        # The other one takes nothing, and so this one does not even read on.
        assert worker.status().rows_read == 10
        worker.waited(5)
        played.settle()
        assert worker.status().rows_read == 11
        worker.waited(7)
        status = worker.status()
        assert (status.backpressured_us, status.idle_us) == (5, 7)
