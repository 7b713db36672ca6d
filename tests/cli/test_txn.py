"""`millstream txn`: lists what is undecided, and decides it by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from tests.cli.conftest import Command


@pytest.fixture
def log(log_directory: Path) -> Log:
    """A log with a prepared transaction of `job` over two topics, and an open one of `shop`."""
    log = Log(log_directory)
    schema = pa.schema([("id", pa.int64())])
    rows = pa.table({"id": [1, 2]})
    for name in ("a", "b"):
        log.create_topic(name, schema, if_not_exists=True)
    job = log.transactions.writer("job")
    for name in ("a", "b"):
        log.producer(name, writer=job).append(rows, transaction=7)
    log.transactions.prepare(job, 7, [("a", 0), ("b", 0)])
    log.create_topic("c", schema)
    shop = log.transactions.writer("shop")
    producer = log.producer("c", writer=shop)
    producer.append(rows, transaction=1)
    producer.flush()
    return log


def ids(log: Log, topic: str) -> list[int]:
    found: list[int] = log.topic(topic).to_arrow()["id"].to_pylist()
    return found


@pytest.mark.usefixtures("log")
def test_a_list_says_who_and_where(millstream: Command) -> None:
    code, out, _ = millstream("txn", "list")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[:4] + line[-2:] for line in lines if line and line[0] == "job"] == [
        ["job", "1", "7", "prepared", "a/0", "b/0"]
    ]
    assert [line[:4] + line[-1:] for line in lines if line and line[0] == "shop"] == [
        ["shop", "1", "1", "open", "c/0"]
    ]
    code, out, _ = millstream("txn", "list", "--json")
    assert [(each["owner"], each["state"]) for each in json.loads(out)] == [
        ("job", "prepared"), ("shop", "open"),
    ]  # fmt: skip


@pytest.mark.parametrize("outcome", ["commit", "abort"])
def test_a_prepared_one_is_decided(millstream: Command, log: Log, outcome: str) -> None:
    code, _, err = millstream("txn", outcome, "job", "7")
    assert (code, err.split()[0]) == (0, "committed" if outcome == "commit" else "aborted")
    expected = [1, 2] if outcome == "commit" else []
    assert [ids(log, "a"), ids(log, "b"), ids(log, "c")] == [expected, expected, []]
    code, _, err = millstream("txn", outcome, "job", "7")
    assert code == 2
    assert "no undecided transaction 7 of 'job'" in err


def test_an_open_one_can_only_be_aborted(millstream: Command, log: Log) -> None:
    code, _, err = millstream("txn", "commit", "shop", "1")
    assert code == 2
    assert "is open, not prepared" in err
    assert millstream("txn", "abort", "shop", "1")[0] == 0
    with log.producer("c") as producer:
        producer.append(pa.table({"id": [3]}))
    assert ids(log, "c") == [3]


def test_there_may_be_none(millstream: Command, log_directory: Path) -> None:
    Log(log_directory).create_topic("x", pa.schema([("id", pa.int64())]), if_not_exists=True)
    code, _, err = millstream("txn", "list")
    assert code == 0
    assert "no undecided transactions" in err
