"""Random numbers are those of the place of a row, whatever the batches and the workers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.errors import PlanError
from millstream.log import Log

COUNT = 500


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    schema = pa.schema(
        {"id": pa.int64(), "tags": pa.list_(pa.int64()), "at": pa.timestamp("us", "UTC")}
    )
    log.create_topic("rows", schema, partitions=4, time="at")
    with log.producer("rows") as producer:
        for begin in range(0, COUNT, 50):
            numbers = range(begin, begin + 50)
            producer.append(
                pa.table({"id": numbers, "tags": [[n, n] for n in numbers], "at": numbers}, schema)
            )
    return log


def drawn(stream: ms.Stream, log: Log, **options: object) -> dict[int, float]:
    ms.run(stream.to("out"), name="job", until="end", log=log, fresh=True, **options)  # type: ignore[arg-type]
    rows = log.topic("out").to_arrow().to_pylist()
    log.delete_topic("out")
    return {row["id"]: row["r"] for row in rows}


def test_they_do_not_depend_on_workers_batches_or_what_else_is_computed(log: Log) -> None:
    rows = ms.stream("rows", log=log)
    plain = rows.select("id", r=ms.random(seed=3))
    expected = drawn(plain, log, parallelism=1)
    assert len(expected) == len(set(expected.values())) == COUNT
    assert drawn(plain, log, parallelism=3) == expected
    with override_run(RunOverrides(batch_rows=7)):
        assert drawn(plain, log) == expected
    later = rows.filter(col("id") % 3 == 0).with_columns(r=ms.random(3)).filter(col("r") < 0.5)
    assert drawn(later.select("id", "r"), log) == {
        key: each for key, each in expected.items() if key % 3 == 0 and each < 0.5
    }
    assert drawn(rows.select("id", r=ms.random(seed=4)), log) != expected
    keyed = rows.select("id", r=ms.random(3)).key_by("id").filter(ms.random(3) < 0.1)
    assert drawn(keyed, log, on_error="dlq") == {k: e for k, e in expected.items() if e < 0.1}


def test_rows_of_one_row_have_one_number(log: Log) -> None:
    rows = ms.stream("rows", log=log).flat_map(tag=col("tags")).select("id", r=ms.random())
    found = rows.collect().to_pylist()
    assert len(found) == 2 * COUNT
    assert len({(row["id"], row["r"]) for row in found}) == COUNT


def test_rows_made_of_others_have_none(log: Log) -> None:
    counted = ms.stream("rows", log=log).window(ms.tumbling("1s")).agg(n=ms.count())
    with pytest.raises(PlanError, match="draw it before") as raised:
        counted.filter(ms.random() < 0.5)
    assert str(raised.value).startswith(f"{__file__}:")
    with pytest.raises(PlanError, match="a seed is an integer"):
        ms.random(seed=0.5)  # type: ignore[arg-type]
