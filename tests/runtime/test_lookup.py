"""Rows with answers of async functions come out once, whatever dies; the others are letters."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.plan.compile import compile_job
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk
from tests.runtime.kit import PATH, put

SCHEMA = pa.schema({"id": pa.int64(), "key": pa.string()})


@ms.udf(cache=3)
async def answer(n: int) -> int:
    return 100 // (n - 5)


@pytest.mark.parametrize("seed", range(6))
def test_each_row_comes_out_once_with_its_answer(seed: int) -> None:
    chosen = random.Random(seed)
    disk = MemoryDisk(random.Random(seed + 1))
    log = Log(PATH, storage=disk.storage("test"), clock=ManualClock())
    log.create_topic("rows", SCHEMA, partitions=2)
    rows: list[dict[str, Any]] = [{"id": n, "key": chosen.choice("abc")} for n in range(60)]
    for begin in range(0, len(rows), 5):
        batch = pa.RecordBatch.from_pylist(rows[begin : begin + 5], SCHEMA)
        put(log, "rows", batch, begin // 5 % 2)
    stream = ms.stream("rows", log=log).with_columns(answer=answer(col("id") % 7))
    counted = stream.key_by("key").agg(n=ms.count(), ttl="never")
    sinks = [stream.to("out").node, counted.to("counts", mode="upsert").node]
    options = RunOptions(
        parallelism=(1, 2, 4)[seed % 3],
        until="end",
        checkpoint_interval_us=chosen.choice((300, 3_000)),
        batch_rows=chosen.choice((1, 3, 50)),
    )
    run_simulated(
        lambda workers, partitions: compile_job(sinks, "job", workers, partitions, "dlq"),
        disk, PATH, options,
        seed=seed, faults=Faults(count_max=4, every_events=40), clock=ManualClock(),
    )  # fmt: skip
    log = Log(PATH, storage=disk.storage("looks"), clock=ManualClock())
    good = [row for row in rows if row["id"] % 7 != 5]
    out = log.topic("out").to_arrow(columns=["id", "answer", "_partition"]).to_pylist()
    assert {each["id"]: each["answer"] for each in out} == {
        row["id"]: 100 // (row["id"] % 7 - 5) for row in good
    }
    assert len(out) == len(good)
    letters = log.topic("job.dlq").to_arrow().to_pylist()
    assert sorted(json.loads(each["row"])["id"] for each in letters) == [*range(5, 60, 7)]
    assert {each["topic"] for each in letters} == {"rows"}
    assert "ZeroDivisionError" in letters[0]["error"]
    counts = {each["key"]: each["n"] for each in log.topic("counts").latest().to_pylist()}
    assert counts == {key: sum(row["key"] == key for row in good) for key in "abc"}
