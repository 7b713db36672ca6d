"""Rows that cannot be computed: told with their place, skipped, or kept as dead letters."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.errors import JobError, OptionError
from millstream.log import Log
from millstream.operators.position import UNKNOWN, Place, place_of, positions

SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string(), "kind": pa.string()})
KINDS = pa.schema({"kind": pa.string(), "weight": pa.int64()})


@ms.udf(returns="int64")
def inverse(n):  # type: ignore[no-untyped-def]
    return 100 // n


def inverse_of_batch(rows: pa.RecordBatch) -> pa.RecordBatch:
    assert [100 // each.as_py() for each in rows["n"]]
    return rows


def rows_of(seed: int, count: int, wrong: int) -> list[dict[str, object]]:
    chooser = random.Random(seed)
    bad = set(chooser.sample(range(count), wrong))
    return [
        {
            "id": index,
            "text": chooser.choice(["x", "1.5", ""])
            if index in bad
            else str(chooser.randint(0, 9)),
            "kind": chooser.choice("ab"),
        }
        for index in range(count)
    ]


def log_of(path: Path, rows: list[dict[str, object]], partitions: int = 2, batch: int = 7) -> Log:
    log = Log(path)
    log.create_topic("rows", SCHEMA, partitions=partitions)
    log.create_topic("kinds", KINDS, key=["kind"], table=True)
    with log.producer("kinds") as producer:
        producer.append(pa.RecordBatch.from_pylist([{"kind": "a", "weight": 1}], KINDS))
    with log.producer("rows") as producer:
        for begin in range(0, len(rows), batch):
            producer.append(pa.RecordBatch.from_pylist(rows[begin : begin + batch], SCHEMA))
    return log


def places(log: Log, topic: str = "rows") -> dict[int, tuple[int, int]]:
    found = log.topic(topic).to_arrow(columns=["id", "_partition", "_offset"])
    return {row["id"]: (row["_partition"], row["_offset"]) for row in found.to_pylist()}


def numbers(log: Log) -> ms.Stream:
    return ms.stream("rows", log=log).with_columns(n=col("text").cast("int64"))


@pytest.mark.parametrize(
    "job",
    [
        numbers,
        lambda log: numbers(log).filter(col("n") >= 0),
        lambda log: (
            ms.stream("rows", log=log)
            .filter(col("id") >= 10)
            .join(ms.table("kinds", log=log), on="kind", how="left")
            .with_columns(n=col("text").cast("int64"))
        ),
        lambda log: (
            ms.stream("rows", log=log)
            .flat_map(part=col("text").str.split("|"))
            .with_columns(n=col("part").cast("int64"))
        ),
    ],
    ids=["alone", "filter", "join", "flat map"],
)
def test_the_row_that_fails_is_named_and_shown(
    job: Callable[[Log], ms.Stream], tmp_path: Path
) -> None:
    rows = rows_of(1, 60, 0)
    rows[41]["text"] = "x"
    log = log_of(tmp_path, rows)
    partition, offset = places(log)[41]
    sink = job(log).to("out")
    with pytest.raises(JobError) as raised:
        ms.run(sink, name="job", until="end", log=log)
    text = str(raised.value)
    assert f"(at rows/{partition}, offset {offset})" in text
    assert "cast from string to int64 failed: 'x'" in text
    assert '"id": 41, "text": "x"' in text
    assert text.startswith(f"{__file__}:")


def test_the_place_is_right_where_rows_were_passed(tmp_path: Path) -> None:
    log = log_of(tmp_path, rows_of(1, 10, 0), partitions=1)
    # Rows of a transaction that was aborted lie in between.
    row = {"id": 90, "text": "0", "kind": "a"}
    with pytest.raises(KeyboardInterrupt), log.transaction("tester") as transaction:
        transaction.append("rows", pa.RecordBatch.from_pylist([row] * 5, SCHEMA))
        raise KeyboardInterrupt
    with log.producer("rows") as producer:
        wrong = [{"id": 91, "text": "1", "kind": "a"}, {"id": 92, "text": "x", "kind": "a"}]
        producer.append(pa.RecordBatch.from_pylist(wrong, SCHEMA))
    _, offset = places(log)[92]
    with pytest.raises(JobError, match=rf"at rows/0, offset {offset}\)"):
        ms.run(numbers(log).to("out"), name="job", until="end", log=log)


def test_an_exception_of_a_function_names_its_row(tmp_path: Path) -> None:
    rows = rows_of(1, 20, 0)
    log = log_of(tmp_path, rows, partitions=1)
    sink = ms.stream("rows", log=log).with_columns(i=inverse(col("id") - 13)).to("out")
    with pytest.raises(JobError, match=r"at rows/0, offset 13\): ZeroDivisionError.*\"id\": 13"):
        ms.run(sink, name="job", until="end", log=log)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_skipped_rows_are_counted(tmp_path: Path, parallelism: int) -> None:
    rows = rows_of(2, 80, 9)
    log = log_of(tmp_path, rows)
    result = ms.run(
        numbers(log).to("out"), name="job", until="end", log=log, on_error="skip",
        parallelism=parallelism,
    )  # fmt: skip
    good = {row["id"]: int(str(row["text"])) for row in rows if str(row["text"]).isdigit()}
    out = log.topic("out").to_arrow().to_pylist()
    assert {row["id"]: row["n"] for row in out} == good
    assert len(out) == len(good)
    (counters,) = (each for name, each in result.counters.items() if name.startswith("select"))
    assert (counters.rows_in, counters.rows_out) == (80, len(good))
    assert counters.rows_failed == 80 - len(good) > 0


@pytest.mark.parametrize("seed", range(3))
def test_dead_letters_say_what_failed_where_and_why(tmp_path: Path, seed: int) -> None:
    rows = rows_of(seed, 60, 11)
    log = log_of(tmp_path, rows)
    # A key's rows cross to its worker, and some fail behind that.
    inverted = numbers(log).with_columns(i=inverse(col("n")))
    if seed == 0:
        inverted = numbers(log).map_batches(inverse_of_batch, same_rows=True)
    counted = inverted.key_by("kind")
    result = ms.run(counted.to("out"), name="job", until="end", log=log, on_error="dlq")
    letters = log.topic("job.dlq").to_arrow().to_pylist()
    wrong = {row["id"] for row in rows if not str(row["text"]).isdigit() or str(row["text"]) == "0"}
    assert {json.loads(each["row"])["id"] for each in letters} == wrong
    assert len(letters) == len(wrong)
    assert {row["id"] for row in log.topic("out").to_arrow().to_pylist()} == {
        row["id"] for row in rows
    } - wrong
    known = places(log)
    for each in letters:
        row = json.loads(each["row"])
        assert (each["topic"], each["job"], each["generation"]) == ("rows", "job", 0)
        assert (each["partition"], each["offset"]) == known[row["id"]]
        assert each["location"].startswith(__file__)
        zero = row["text"] == "0"
        assert ("ZeroDivisionError" if zero else "cast from string to int64") in each["error"]
    assert sum(each.rows_failed for each in result.counters.values()) == len(wrong)


def test_an_option_that_is_none_is_refused(tmp_path: Path) -> None:
    log = log_of(tmp_path, rows_of(1, 3, 0))
    with pytest.raises(OptionError, match='on_error is "fail", "skip" or "dlq"'):
        ms.run(numbers(log).to("out"), log=log, on_error="ignore")  # type: ignore[arg-type]


def test_a_job_that_cannot_fail_has_no_dead_letters(tmp_path: Path) -> None:
    log = log_of(tmp_path, rows_of(1, 3, 0))
    ms.run(ms.stream("rows", log=log).to("out"), name="job", until="end", log=log, on_error="dlq")
    assert "job.dlq" not in log.topic_names()


def test_positions_are_taken_apart_as_they_were_made() -> None:
    import numpy as np

    offsets = np.array([0, 5, (1 << 40) - 1, 1 << 40], np.int64)
    made = positions(31, 63, 4095, offsets)
    assert [place_of(int(each)) for each in made] == [
        *(Place(31, 63, 4095, int(each)) for each in offsets[:3]), None
    ]  # fmt: skip
    assert (made[:3] > 0).all()
    assert (positions(0, 64, 0, offsets) == UNKNOWN).all()
    assert place_of(None) is None


TIMED = pa.schema({"at": pa.timestamp("us", "UTC"), "key": pa.string(), "n": pa.int64()})
NOBODYS = {13: None, 20: 5 - 2**63, 27: None}
"""Times that no window goes by, by row."""


def timed_log(path: Path) -> Log:
    log = Log(path)
    log.create_topic("rows", TIMED, partitions=2, time="at")
    times = [NOBODYS.get(row, row * 1_000_000) for row in range(40)]
    columns = [pa.array(times, TIMED.field("at").type), list("abcd") * 10, range(40)]
    rows = pa.record_batch([columns[0], *(pa.array(each) for each in columns[1:])], schema=TIMED)
    with log.producer("rows") as producer:
        producer.append(rows.slice(0, 25), partition=0)
        producer.append(rows.slice(25), partition=1)
    return log


def by_windows(rows: ms.Stream) -> ms.Stream:
    return rows.window(ms.tumbling("1h")).agg(rows=ms.count(), n=ms.sum("n"))


def by_sliding(rows: ms.Stream) -> ms.Stream:
    sums = rows.window(ms.sliding("1h")).agg(n2=ms.count())
    return sums.select("key", "n", rows=ms.lit(1))


def by_dedup(rows: ms.Stream) -> ms.Stream:
    return rows.key_by("n").dedup(within="1h").select("key", "n", rows=ms.lit(1))


def by_aggregate(rows: ms.Stream) -> ms.Stream:
    return rows.agg(ttl="1h", rows=ms.count(), n=ms.sum("n")).to_stream()


@pytest.mark.parametrize("operator", [by_windows, by_sliding, by_dedup, by_aggregate])
@pytest.mark.parametrize("parallelism", [1, 2])
def test_rows_without_a_time_that_can_be_gone_by_are_poison(
    operator: Callable[[ms.Stream], ms.Stream], parallelism: int, tmp_path: Path
) -> None:
    log = timed_log(tmp_path)
    usable = {13, 27} if operator in {by_dedup, by_aggregate} else set(NOBODYS)
    rows = ms.stream("rows", log=log, lateness="100d").filter(
        col("n") != 20 if len(usable) == 2 else col("n") >= 0
    )
    sinks = [operator(rows.key_by("key")).select("key", "rows", "n").to("out")]
    options: Any = {"name": "job", "until": "end", "log": log, "parallelism": parallelism}
    named = r'(no event time|range of times).*"n": (13|20|27)'
    with pytest.raises(JobError, match=named) as raised:
        ms.run(sinks, **options)
    if operator is by_windows or parallelism == 1:
        assert re.search(r"at rows/[01], offset (13|20|2)\)", str(raised.value))
    result = ms.run(sinks, on_error="skip", fresh=True, **options)
    assert sum(each.rows_failed for each in result.counters.values()) == len(usable)
    ms.run(sinks, on_error="dlq", fresh=True, **options)
    letters = log.topic("job.dlq").to_arrow().to_pylist()
    assert {json.loads(each["row"])["n"] for each in letters} == usable
    found = {(each["partition"], each["offset"]) for each in letters}
    assert found == {(0, row) if row < 25 else (1, row - 25) for row in usable}
    if operator is by_windows:
        (first, *_) = (each["error"] for each in letters)
        assert "no event time: column 'at' is null" in first or "range of times" in first
        totals = log.topic("out").to_arrow()["rows"].to_pylist()
        assert sum(totals) == 2 * (40 - len(usable))  # of two runs
