"""Dead letters are exactly once, as results are, whatever dies."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.plan.compile import compile_job
from millstream.runtime.graph import JobGraph
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk

PATH = "/log"
SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string()})


def simulate(seed: int, parallelism: int, faults: Faults) -> int:
    """One run whose rows are letters or results, each once; how often it was restored."""
    chooser = random.Random(seed)
    disk, clock = MemoryDisk(random.Random(seed + 1)), ManualClock()
    log = Log(PATH, storage=disk.storage("setup"), clock=clock)
    log.create_topic("rows", SCHEMA, partitions=3)
    rows = [
        {"id": index, "text": chooser.choice(["1", "2", "x", None])}
        for index in range(chooser.randrange(60, 120))
    ]
    with log.producer("rows") as producer:
        for begin in range(0, len(rows), 5):
            producer.append(pa.RecordBatch.from_pylist(rows[begin : begin + 5], SCHEMA))
    stream = ms.stream("rows", log=log).with_columns(n=col("text").cast("int64"), r=ms.random())
    sinks = [stream.to("out").node]

    def compile_for(workers: int, partitions: Mapping[str, int]) -> JobGraph:
        return compile_job(sinks, "job", workers, partitions, "dlq")

    options = RunOptions(
        parallelism=parallelism,
        until="end",
        run="simulated",
        checkpoint_interval_us=chooser.choice((300, 3_000)),
        batch_rows=chooser.choice((1, 3, 9)),
        channel_bytes=1,
    )
    report = run_simulated(compile_for, disk, PATH, options, seed=seed, faults=faults, clock=clock)
    reader = Log(PATH, storage=disk.storage("reader"), clock=clock)
    out = reader.topic("out").to_arrow().to_pylist()
    letters = [json.loads(each) for each in reader.topic("job.dlq").to_arrow()["row"].to_pylist()]
    assert sorted(each["id"] for each in out) == [e["id"] for e in rows if e["text"] != "x"]
    assert sorted(each["id"] for each in letters) == [e["id"] for e in rows if e["text"] == "x"]
    assert len({each["r"] for each in out}) == len(out)
    return len(report.restores)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_letter_is_written_once_whatever_dies(parallelism: int) -> None:
    assert simulate(1, parallelism, Faults(count_max=0)) == 0
    restores = [simulate(seed, parallelism, Faults(every_events=60)) for seed in range(10, 14)]
    assert sum(restores) > 2
