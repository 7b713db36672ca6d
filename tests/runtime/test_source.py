"""A source: which rows it gives in which order, at what times, and what it says of time."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.log import Log, Topic
from millstream.log.bells import DECISIONS
from millstream.log.predicate import Comparison
from millstream.runtime.graph import SourceNode
from millstream.runtime.manifest import PartitionState
from millstream.runtime.source import NEVER_US, Source, SourceStart
from millstream.windows.watermark import WATERMARK_MIN
from tests.runtime.kit import EVENTS, SECOND_US, TIME, Bench, event_log, events, put, put_names

BEGINNING = SourceStart({}, None, None)
STAMPED = pa.field("_stamp", pa.int64())


def source(
    log: Log,
    start: SourceStart = BEGINNING,
    *,
    indices: tuple[int, ...] = (0,),
    batch_rows: int = 100,
    wants_time: bool = True,
    **node: Any,
) -> Source:
    fields: dict[str, Any] = {
        "name": "events",
        "topic": "events",
        "role": "stream",
        "schema": EVENTS,
        "time_column": "time",
        "location": "job.py:7",
        **node,
    }
    return Source(
        SourceNode(**fields),
        log.topic(fields["topic"]),
        indices,
        start,
        log.clock,
        batch_rows=batch_rows,
        batch_bytes=1_000_000,
        wants_time=wants_time,
    )


def values(source: Source) -> list[int]:
    """The values of all rows that are there now, in the order in which they are read."""
    found: list[int] = []
    while (rows := source.try_read()) is not None:
        found += rows.column("value").to_pylist()
    return found


def watermark_s(source: Source) -> tuple[float | None, bool]:
    value, idle = source.watermark()
    return None if value == WATERMARK_MIN else value / SECOND_US, idle


class TestReading:
    def test_rows_come_from_the_position_on_and_move_it(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(1, 2, 3))
        reading = source(log, SourceStart({0: PartitionState(1, 5)}, None, None), batch_rows=1)
        assert values(reading) == [1, 2]
        assert reading.positions() == {0: PartitionState(3, 3 * SECOND_US)}
        assert reading.rows_read == 2
        assert reading.reading == "events/0, offsets 2 to 2"
        put(log, "events", events(4, first=3))
        assert values(reading) == [3]

    def test_the_partition_that_is_furthest_behind_is_read_first(self) -> None:
        log = event_log(Bench(), partitions=2)
        put(log, "events", events(10, 40), 0)
        put(log, "events", events(20, 30, first=2), 1)
        assert values(source(log, indices=(0, 1), batch_rows=1)) == [0, 2, 1, 3]

    def test_without_time_the_partitions_take_turns(self) -> None:
        log = event_log(Bench(), partitions=2)
        put(log, "events", events(1, 1, 1), 0)
        put(log, "events", events(1, 1, 1, first=3), 1)
        reading = source(log, indices=(0, 1), batch_rows=1, time_column=None)
        assert values(reading) == [3, 0, 4, 1, 5, 2]

    def test_a_bounded_source_is_done_at_its_ends(self) -> None:
        log = event_log(Bench(), partitions=2)
        put(log, "events", events(1, 2, 3), 0)
        put(log, "events", events(4, first=3), 1)
        reading = source(log, SourceStart({}, (2, 1), None), indices=(0, 1))
        assert not reading.done
        assert values(reading) == [0, 1, 3]
        assert reading.done
        assert reading.lag_rows() == 0

    def test_a_share_without_partitions_is_done_and_holds_back_nobody(self) -> None:
        reading = source(event_log(Bench()), SourceStart({}, (0,), None), indices=())
        assert reading.done
        assert reading.try_read() is None
        assert reading.watermark() == (WATERMARK_MIN, True)

    def test_lag_is_counted_to_the_durable_end_without_ends(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(1, 2, 3))
        reading = source(log, batch_rows=2)
        reading.try_read()
        assert reading.lag_rows() == 1

    def test_a_table_is_loaded_at_its_bounds_and_tells_rows_from_tombstones(self) -> None:
        log = Bench().log()
        put_names(log, "names", a="one", b="two")
        put_names(log, "names", a=None)
        names: dict[str, Any] = {"topic": "names", "role": "table", "time_column": None}
        schema = log.topic("names").schema
        reading = source(log, SourceStart({}, None, (2,)), batch_rows=1, schema=schema, **names)
        operations = []
        for loaded in (False, False, True):
            assert reading.loaded is loaded
            rows = reading.try_read()
            assert rows is not None
            operations += rows.column("_op").to_pylist()
        assert operations == [0, 0, 1]
        assert reading.watermark() == (WATERMARK_MIN, True)

    def test_a_drained_table_is_read_to_its_bounds_and_a_stream_no_further(self) -> None:
        log = Bench().log()
        put_names(log, "names", a="one", b="two", c="three")
        schema = log.topic("names").schema
        names: dict[str, Any] = {"topic": "names", "time_column": None, "schema": schema}
        table = source(log, SourceStart({}, None, (2,)), batch_rows=1, role="table", **names)
        stream = source(log, batch_rows=1, **names)
        for reading in (table, stream):
            assert reading.try_read() is not None
            reading.end_here()
        assert (table.loaded, stream.done) == (False, True)
        assert table.try_read() is not None
        assert (table.loaded, table.done) == (True, True)

    def test_rows_that_a_power_cut_took_back_are_named(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(1))
        with pytest.raises(JobError, match=r"job\.py:7: source 'events' cannot go on at offset 5"):
            source(log, SourceStart({0: PartitionState(5, 0)}, None, None))


class TestTime:
    def test_the_watermark_trails_the_greatest_time(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(10, 4))
        reading = source(log, lateness_us=3 * SECOND_US)
        assert watermark_s(reading) == (None, False)
        values(reading)
        assert watermark_s(reading) == (7, False)

    def test_the_watermark_follows_whole_frames_where_nobody_wants_the_time(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(10, 4))
        put(log, "events", events(7, first=2))
        reading = source(log, batch_rows=1, wants_time=False)
        seen = []
        while (rows := reading.try_read()) is not None:
            assert rows.schema.names == [each for each in EVENTS.names if each != "time"]
            seen.append(watermark_s(reading)[0])
        assert seen == [None, 10, 10]

    def test_the_slowest_partition_holds_the_watermark_until_it_is_done(self) -> None:
        log = event_log(Bench(), partitions=2)
        put(log, "events", events(10), 0)
        put(log, "events", events(20, first=1), 1)
        reading = source(log, SourceStart({}, (1, 1), None), indices=(0, 1), batch_rows=1)
        reading.try_read()
        assert watermark_s(reading) == (None, False)
        reading.try_read()
        assert watermark_s(reading) == (20, True)
        assert reading.slowest() is None
        running = source(log, indices=(0, 1))
        values(running)
        assert watermark_s(running) == (10, False)
        assert running.slowest() == "events/0"

    def test_a_stamp_is_the_watermark_of_the_rows_own_partition_before_it(self) -> None:
        log = event_log(Bench(), partitions=2)
        put(log, "events", events(10, 4, 20), 0)
        put(log, "events", events(1, 1), 1)
        reading = source(log, indices=(0, 1), stamped=True, batch_rows=3)
        first, second = reading.try_read(), reading.try_read()
        assert first is not None
        assert second is not None
        assert first.schema.field("_stamp") == STAMPED
        stamps = first.column("_stamp").to_pylist(), second.column("_stamp").to_pylist()
        assert stamps == (
            [WATERMARK_MIN, 10 * SECOND_US, 10 * SECOND_US],
            [WATERMARK_MIN, SECOND_US],
        )

    def test_null_times_move_nothing(self) -> None:
        log = event_log(Bench())
        rows = events(10, 0, 5)
        times = pa.array([10 * SECOND_US, None, 5 * SECOND_US], pa.int64()).cast(TIME)
        put(log, "events", rows.set_column(0, EVENTS.field(0), times))
        for stamped in (False, True):
            reading = source(log, stamped=stamped)
            batch = reading.try_read()
            assert batch is not None
            assert batch.column("time").null_count == 1
            assert watermark_s(reading) == (10, False)

    @given(
        st.sampled_from(["s", "ms", "us", "ns"]),
        st.sampled_from([None, "UTC", "Europe/Berlin"]),
        st.lists(st.none() | st.integers(-(2**40), 2**40), min_size=1, max_size=5),
    )
    def test_times_of_any_unit_and_zone_are_read_in_microseconds(
        self, unit: str, zone: str | None, times: list[int | None]
    ) -> None:
        log = Bench().log()
        schema = pa.schema([("time", pa.timestamp(unit, zone)), ("value", pa.int64())])
        log.create_topic("events", schema, time="time")
        column = pa.array(times, pa.int64()).cast(schema.field("time").type)
        put(log, "events", pa.table([column, range(len(times))], schema=schema))
        reading = source(log, schema=schema, stamped=True)
        batch = reading.try_read()
        assert batch is not None
        factors = {"s": 1_000_000, "ms": 1_000, "us": 1}
        expected = [
            None if each is None else each // 1_000 if unit == "ns" else each * factors[unit]
            for each in times
        ]
        assert batch.column("time").type == TIME
        assert batch.column("time").cast(pa.int64()).to_pylist() == expected
        known = [each for each in expected if each is not None]
        assert reading.watermark()[0] == max(known, default=WATERMARK_MIN)

    @pytest.mark.parametrize("seconds", [2**44, -(2**44)])
    def test_a_time_beyond_the_calendar_of_microseconds_is_refused(self, seconds: int) -> None:
        log = Bench().log()
        schema = pa.schema([("time", pa.timestamp("s")), ("value", pa.int64())])
        log.create_topic("events", schema)
        times = pa.array([0, seconds], pa.int64()).cast(pa.timestamp("s"))
        put(log, "events", pa.table([times, [0, 1]], schema=schema))
        reading = source(log, schema=schema)
        with pytest.raises(JobError, match=f"has the time {seconds} s in events/0, offsets 0 to 1"):
            reading.try_read()


class TestIdleness:
    def test_a_silent_partition_stops_holding_the_watermark_and_holds_it_again(self) -> None:
        bench = Bench()
        log = event_log(bench, partitions=2)
        put(log, "events", events(10), 0)
        put(log, "events", events(20), 1)
        reading = source(log, indices=(0, 1), idle_timeout_us=100)
        values(reading)
        bench.clock.sleep_us(99)
        values(reading)
        assert watermark_s(reading) == (10, False)
        bench.clock.sleep_us(1)
        put(log, "events", events(30), 1)
        values(reading)
        assert watermark_s(reading) == (30, False)
        put(log, "events", events(12), 0)
        values(reading)
        assert watermark_s(reading) == (12, False)

    def test_when_all_are_silent_the_greatest_stands(self) -> None:
        bench = Bench()
        log = event_log(bench, partitions=2)
        put(log, "events", events(10), 0)
        put(log, "events", events(20), 1)
        reading = source(log, indices=(0, 1), idle_timeout_us=100)
        values(reading)
        bench.clock.sleep_us(100)
        values(reading)
        assert watermark_s(reading) == (20, True)

    def test_a_partition_that_nobody_looked_at_is_not_idle(self) -> None:
        # While an outlet has no room nothing is read, and rows may have come meanwhile.
        bench = Bench()
        log = event_log(bench, partitions=2)
        put(log, "events", events(10), 0)
        put(log, "events", events(20), 1)
        reading = source(log, indices=(0, 1), idle_timeout_us=100)
        values(reading)
        put(log, "events", events(11), 0)
        bench.clock.sleep_us(1_000)
        assert watermark_s(reading) == (10, False)
        values(reading)
        assert watermark_s(reading) == (11, False)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=8),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(1, 4),
)
def test_frames_that_are_passed_change_no_stamp_and_no_watermark(
    frames: list[list[int]], least: int, end: int, batch_rows: int
) -> None:
    log = event_log(Bench(), config={"segment.bytes": 1})
    count = 0
    for seconds in frames:
        put(log, "events", events(*seconds, first=count))
        count += len(seconds)
    start = SourceStart({}, (min(end, count),), None)
    node: dict[str, Any] = {"stamped": True, "lateness_us": SECOND_US, "batch_rows": batch_rows}
    told = source(log, start, where=Comparison("value", ">=", pa.scalar(least)), **node)
    plain = source(log, start, **node)
    found = [each for each in _stamped(told) if each[0] >= least]
    assert found == [each for each in _stamped(plain) if each[0] >= least]
    assert told.positions() == plain.positions()
    assert told.watermark() == plain.watermark()
    assert told.done
    sealed_rows = sum(map(len, frames[:-1]))
    assert told.rows_read <= plain.rows_read
    if min(end, count) >= sealed_rows and least >= sealed_rows:
        assert told.rows_read <= len(frames[-1])


def _stamped(source: Source) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while (rows := source.try_read()) is not None:
        columns = (rows.column(name).to_pylist() for name in ("value", "_stamp"))
        found += zip(*columns, strict=True)
    return found


def test_the_times_of_rows_that_are_passed_at_the_end_count() -> None:
    log = event_log(Bench(), config={"segment.bytes": 1})
    for seconds in (1, 9, 2):
        put(log, "events", events(seconds))
    reading = source(log, SourceStart({}, (2,), None), where=Comparison("value", ">", 0))
    assert reading.try_read() is None
    assert reading.done
    assert reading.positions() == {0: PartitionState(2, 9 * SECOND_US)}


class TestListening:
    def test_a_quiet_partition_is_not_looked_at_until_its_bell_rings(self) -> None:
        log = event_log(Bench(), partitions=2)
        reading = source(log, indices=(0, 1))
        first, second = reading.unheard()
        assert values(reading) == []
        put(log, "events", events(1), 0)
        assert values(reading) == [0], "nobody listens: everything is looked at"
        reading.listened({first, second})
        put(log, "events", events(2, first=1), 0)
        assert values(reading) == [1], "it came before the look that found nothing"
        assert reading.unheard() == [first], "and is listened for anew after rows came"
        reading.listened({first})
        assert values(reading) == []
        assert reading.unheard() == []
        put(log, "events", events(3, first=2), 0)
        put(log, "events", events(4, first=3), 1)
        assert values(reading) == [], "what rings is looked at"
        reading.look_again({second})
        assert values(reading) == [3]
        reading.look_again(None)
        assert values(reading) == [2]
        assert reading.unheard() == [first, second]

    def test_partitions_of_one_bell_are_listened_for_together(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = event_log(Bench(), partitions=2)
        monkeypatch.setattr(Topic, "bell", lambda *_: 7)
        reading = source(log, indices=(0, 1))
        reading.listened({7})
        assert values(reading) == []
        put(log, "events", events(1), 0)
        reading.look_again({7})
        assert values(reading) == [0]
        put(log, "events", events(2, first=1), 1)
        # The first partition needs it; what the second has was counted before.
        reading.listened({7})
        assert values(reading) == [1]

    def test_rows_that_wait_for_a_decision_have_its_bell_listened_for_too(self) -> None:
        log = event_log(Bench())
        writer = log.transactions.writer("somebody")
        producer = log.producer("events", writer=writer)
        producer.append(events(1), transaction=1)
        producer.flush()
        reading = source(log)
        (bell,) = reading.unheard()
        reading.listened({bell})
        assert values(reading) == []
        assert set(reading.unheard()) == {bell, DECISIONS}, "it is not quiet: nobody would tell"
        reading.listened({bell, DECISIONS})
        assert values(reading) == []
        assert reading.unheard() == []
        log.transactions.prepare(writer, 1, [("events", 0)])
        log.transactions.decide(writer, 1, "commit")
        assert values(reading) == []
        reading.look_again({DECISIONS})
        assert values(reading) == [0]

    def test_who_listens_for_decisions_later_takes_none_away_from_others(self) -> None:
        log = event_log(Bench(), partitions=2)
        writer = log.transactions.writer("somebody")
        for partition in (0, 1):
            producer = log.producer("events", writer=writer)
            producer.append(events(1, first=partition), partition=partition, transaction=1)
            producer.flush()
        reading = source(log, indices=(0, 1))
        first, second = reading.unheard()
        assert values(reading) == []
        reading.listened({first, DECISIONS})
        assert values(reading) == []
        assert reading.lag_rows() == 2, "that nothing can be read does not mean there is nothing"
        assert set(reading.unheard()) == {second, DECISIONS}
        log.transactions.prepare(writer, 1, [("events", 0), ("events", 1)])
        log.transactions.decide(writer, 1, "commit")
        # The second partition needs it; what was decided is counted before.
        reading.listened({second, DECISIONS})
        assert sorted(values(reading) + values(reading)) == [0, 1]

    def test_a_quiet_partition_becomes_idle_in_time(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1))
        reading = source(log, idle_timeout_us=5 * SECOND_US)
        assert reading.due_us() == NEVER_US
        assert values(reading) == [0]
        reading.listened(set(reading.unheard()))
        assert values(reading) == []
        due_us = reading.due_us()
        assert due_us - log.clock.monotonic_us() == 5 * SECOND_US
        assert watermark_s(reading) == (1.0, False)
        log.clock.sleep_us(5 * SECOND_US)
        assert values(reading) == []
        assert watermark_s(reading) == (1.0, True)
        assert reading.due_us() == NEVER_US
