"""Processing time: each row once, whenever it is read, and time that never goes back."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import millstream as ms
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.manifest import PartitionState
from millstream.runtime.options import RunOptions
from millstream.runtime.source import PROCESSING_TIME_STEP_US, SourceStart
from millstream.storage_memory import MemoryDisk
from tests.runtime.kit import EVENTS, PATH, SECOND_US, TIME, Bench, compiler, event_log, events, put
from tests.runtime.test_source import source, values


def times_of(rows: pa.RecordBatch | None) -> list[int]:
    assert rows is not None
    return rows.column("read").cast(pa.int64()).to_pylist()


class TestSource:
    def test_rows_get_the_time_at_which_they_are_read_beside_what_the_topic_has(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        reading = source(log, time_column="read", processing_time=True, stamped=True, position=0)
        rows = reading.try_read()
        now_us = bench.clock.now_us()
        assert times_of(rows) == [now_us] * 2
        assert rows is not None
        assert rows.schema.names == ["time", "key", "value", "read", "_position", "_stamp"]
        assert rows.schema.field("read").type == TIME
        assert max(rows.column("_stamp").to_pylist()) <= now_us

    def test_time_never_goes_back(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        now_us = bench.clock.now_us()
        restored = SourceStart({0: PartitionState(0, now_us + 500)}, None, None)
        reading = source(log, restored, time_column="read", processing_time=True, batch_rows=1)
        assert times_of(reading.try_read()) == [now_us + 500]
        bench.clock.jump_us(-1_000_000)
        assert times_of(reading.try_read()) == [now_us + 500]
        assert reading.positions() == {0: PartitionState(2, now_us + 500)}

    def test_time_goes_on_in_steps_while_no_rows_come(self) -> None:
        bench = Bench()
        reading = source(event_log(bench), time_column="read", processing_time=True)
        assert reading.try_read() is None
        began_us, _ = reading.watermark()
        bench.clock.sleep_us(PROCESSING_TIME_STEP_US - 1)
        assert reading.try_read() is None
        assert reading.watermark() == (began_us, False)
        bench.clock.sleep_us(1)
        assert reading.try_read() is None
        assert reading.watermark() == (began_us + PROCESSING_TIME_STEP_US, False)

    def test_partitions_take_turns(self) -> None:
        log = event_log(Bench(), partitions=2)
        put(log, "events", events(1, 1), 0)
        put(log, "events", events(1, 1, first=2), 1)
        reading = source(
            log, indices=(0, 1), batch_rows=1, time_column="read", processing_time=True
        )
        assert values(reading) == [2, 0, 3, 1]


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(
    parallelism=st.sampled_from([1, 2, 4]),
    partitions=st.integers(1, 4),
    changes=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_every_row_counts_once_whoever_dies(
    parallelism: int, partitions: int, changes: bool, seed: int
) -> None:
    random_ = random.Random(seed)
    disk = MemoryDisk(random_)
    log = Log(PATH, storage=disk.storage("test"), clock=ManualClock())
    log.create_topic("events", EVENTS, partitions=partitions, time="time")
    counts = dict.fromkeys("abc", 0)
    with log.producer("events") as producer:
        for _ in range(20):
            key, count = random_.choice("abc"), random_.randint(1, 5)
            counts[key] += count
            rows = events(*range(count), key=key)
            producer.append(rows, partition=random_.randrange(partitions))
    keyed = ms.stream("events", ms.processing_time(), log=log).key_by("key")
    windows = keyed.window(ms.tumbling("7ms"), emit="changes" if changes else "final")
    result = windows.agg(n=ms.count())
    sinks = [result.to("counts", mode="upsert" if changes else "append")]
    if not changes:
        sinks.append(result.late().to("late"))
    run_simulated(
        compiler(sinks),
        disk,
        PATH,
        RunOptions(
            parallelism=parallelism, until="end", checkpoint_interval_us=2_000, batch_rows=3
        ),
        seed=seed,
        faults=Faults(count_max=3, every_events=80),
        clock=ManualClock(),
    )
    log = Log(PATH, storage=disk.storage("test"), clock=ManualClock())
    topic = log.topic("counts")
    found = topic.latest() if changes else topic.to_arrow()
    totals = found.group_by("key").aggregate([("n", "sum")])
    assert dict(zip(totals["key"].to_pylist(), totals["n_sum"].to_pylist(), strict=True)) == {
        key: count for key, count in counts.items() if count
    }
    windows_given = found.select(["key", "window_start"])
    assert windows_given.group_by(["key", "window_start"]).aggregate([]).num_rows == len(found)
    assert pc.min(found["window_start"]).as_py().year == 2023
    assert changes or log.topic("late").to_arrow().num_rows == 0


def test_processing_time_ends_windows_on_the_local_host(tmp_path: Path) -> None:
    log = Log(str(tmp_path))
    log.create_topic("events", EVENTS)
    with log.producer("events") as producer:
        producer.append(events(1, 2, 3))
    windows = ms.stream("events", ms.processing_time("read"), log=log).window(ms.tumbling("50ms"))
    counts = windows.agg(n=ms.count())
    log.create_topic("counts", counts.schema)
    job = ms.submit(counts.to("counts"), checkpoint_interval="20ms", on="local")
    rows = log.consumer("counts").poll(timeout_us=20 * SECOND_US)
    assert rows is not None
    assert rows.column("n").to_pylist() == [3]
    job.stop()
    job.wait()


def test_a_filter_by_when_rows_are_read_passes_no_frames() -> None:
    log = event_log(Bench())
    put(log, "events", events(1, 2))
    stream = ms.stream("events", ms.processing_time(), log=log)
    rows = stream.filter(ms.col("processing_time").is_not_null(), ms.col("value") > 0)
    assert "processing time" in str(rows.explain())
    assert rows.select("value").collect().to_pylist() == [{"value": 1}]
