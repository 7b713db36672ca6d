"""`millstream log compact|erase`: what they did, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from tests.cli.conftest import Command

SCHEMA = pa.schema([("key", pa.int64()), ("value", pa.int64())])


@pytest.fixture
def counts(log_directory: Path) -> Log:
    log = Log(log_directory)
    config = {"segment.bytes": 2_000, "cleanup.policy": "delete"}  # nothing by itself
    log.create_topic("counts", SCHEMA, key=["key"], table=True, config=config)
    for value in range(40):
        with log.producer("counts") as producer:
            producer.append(pa.table({"key": [value % 2, 7], "value": [value, value]}))
    log.alter_topic("counts", config={"cleanup.policy": None})
    return log


def test_what_was_done_is_told(millstream: Command, counts: Log) -> None:
    segments = len(counts.topic("counts").partition(0).segments())
    code, out, _ = millstream("log", "compact", "counts")
    assert code == 0
    (line,) = [line.split() for line in out.splitlines() if line.startswith("counts/0")]
    assert line[1] == "0"
    assert line[2] == f"{segments - 1}"
    assert counts.topic("counts").latest().num_rows == 3
    code, out, error = millstream("log", "compact")
    assert (code, out) == (0, "")
    assert "nothing to remove or to compact" in error


def test_mistakes(millstream: Command, counts: Log) -> None:
    assert counts.topic_names() == ["counts"]
    code, out, error = millstream("log", "compact", "count")
    assert (code, out) == (2, "")
    assert "did you mean 'counts'" in error


def test_keys_are_erased(millstream: Command, counts: Log) -> None:
    code, out, _ = millstream("log", "erase", "counts", "--key", "7", "--key", "0")
    assert code == 0
    assert out.startswith("60 rows of 2 keys are gone; ")
    assert counts.topic("counts").latest().to_pylist() == [{"key": 1, "value": 39}]
    code, out, _ = millstream("log", "erase", "counts", "--unfinished")
    assert (code, out[:22]) == (0, "0 rows of 0 keys are g")


def test_keys_of_several_columns_are_erased(millstream: Command, log_directory: Path) -> None:
    log = Log(log_directory)
    log.create_topic("pairs", SCHEMA, key=["key", "value"])
    with log.producer("pairs") as producer:
        producer.append(pa.table({"key": [1, 1, 2], "value": [1, 2, 1]}))
    code, out, _ = millstream("log", "erase", "pairs", "--key", "value=2,key=1")
    assert (code, out[:6]) == (0, "1 rows")
    code, _, error = millstream("log", "erase", "pairs", "--key", "value=2")
    assert code == 2
    assert "a key of this topic is key=VALUE,value=VALUE; got 'value=2'" in " ".join(error.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--key"),
        (("--key", "1", "--unfinished"), "--key"),
        (("--key", "one"), "do not fit"),
    ],
)
def test_mistakes_in_keys(
    millstream: Command, counts: Log, arguments: tuple[str, ...], message: str
) -> None:
    code, out, error = millstream("log", "erase", "counts", *arguments)
    assert (code, out) == (2, "")
    assert message in error
    assert counts.topic("counts").latest().num_rows == 3
