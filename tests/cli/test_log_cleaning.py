"""`millstream log compact`: what it did, and mistakes."""

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
    log.create_topic("counts", SCHEMA, key=["key"], table=True, config={"segment.bytes": 2_000})
    for value in range(40):
        with log.producer("counts") as producer:
            producer.append(pa.table({"key": [value % 2, 7], "value": [value, value]}))
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
