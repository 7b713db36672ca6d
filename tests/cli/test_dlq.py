"""`millstream dlq`: what could not be computed is listed, shown, and goes back once."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.log import Log
from tests.cli.conftest import Command

SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string()})


def run(log: Log, fixed: bool) -> None:
    text = col("text").str.replace_all("[a-z]", "") if fixed else col("text")
    rows = ms.stream("rows", log=log).select("id", n=text.cast("int64"))
    ms.run(rows.to("numbers"), name="parse", until="end", log=log, on_error="dlq")


@pytest.fixture
def log(log_directory: Path) -> Log:
    """A log in which job `parse` left two rows of five."""
    log = Log(log_directory)
    log.create_topic("rows", SCHEMA, partitions=2)
    with log.producer("rows") as producer:
        producer.append(pa.table({"id": [1, 2, 3], "text": ["1", "2x", "3"]}))
        producer.append(pa.table({"id": [4, 5], "text": ["4", "y5"]}))
    run(log, fixed=False)
    return log


@pytest.mark.usefixtures("log")
def test_they_are_listed_and_shown(millstream: Command) -> None:
    code, out, _ = millstream("dlq", "list")
    assert code == 0
    assert "parse" in out
    (listed,) = json.loads(millstream("dlq", "list", "--json")[1])
    assert (listed["job"], listed["rows"], listed["operators"]) == ("parse", 2, ["select"])
    assert "cast from string to int64" in listed["error"]
    code, out, _ = millstream("dlq", "show", "parse")
    assert code == 0
    assert "rows/0, offset 1: operator select" in out
    assert '{"id": 2, "text": "2x"}' in out
    shown = millstream("dlq", "show", "parse", "--json", "--limit", "1")[1]
    assert json.loads(json.loads(shown)["row"])["id"] in {2, 5}  # the last one read


def test_after_a_fix_they_go_back_once(millstream: Command, log: Log) -> None:
    code, _, err = millstream("dlq", "replay", "parse")
    assert (code, err) == (0, "appended 2 rows to rows\n")
    assert millstream("dlq", "replay", "parse")[2] == "nothing to replay of parse\n"
    assert sorted(log.topic("rows").to_arrow()["id"].to_pylist()) == [1, 2, 2, 3, 4, 5, 5]
    run(log, fixed=True)
    numbers = log.topic("numbers").to_arrow().to_pylist()
    assert sorted(each["n"] for each in numbers) == [1, 2, 3, 4, 5]


def test_what_is_gone_is_said(millstream: Command, log: Log) -> None:
    log.delete_topic("rows")
    assert millstream("dlq", "replay", "parse")[2] == "left 2 rows: topic rows is gone\n"


def test_a_job_without_any_is_told(millstream: Command, log: Log) -> None:
    code, _, err = millstream("dlq", "show", "pars")
    assert code == 2
    assert "job 'pars' has no dead letters" in err
    assert "did you mean 'parse'" in err
    log.delete_topic("parse.dlq")
    assert "no dead letters" in millstream("dlq", "list")[2]
