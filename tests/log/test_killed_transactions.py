"""A process is killed between the preparation of a transaction and its decision."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from millstream.cli.txn import app
from millstream.log import Log
from tests.log.log_kit import SCHEMA, ids_of, put, read
from tests.log.processes import WriterProcess

DEAD = 2
"""The row of the transaction that was prepared; 0 and 1 were committed before it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log in which a dead process left a prepared transaction of topics a and b."""
    log = Log(tmp_path)
    for name in "ab":
        log.create_topic(name, SCHEMA, config={"transaction.timeout.ms": 1})
    with WriterProcess(tmp_path, "undecided:0", DEAD + 1) as writer:
        writer.go()
        assert writer.acked() == [0, 1]
        assert not writer.running()
    return tmp_path


def decide(path: Path, outcome: str) -> None:
    """Decide by hand, as `millstream txn`."""
    result = CliRunner().invoke(app, [outcome, "writer", "1", "--log", str(path)])
    assert result.exit_code == 0, result.output


def committed(path: Path) -> list[list[int]]:
    log = Log(path)
    return [read(log.topic(name)) for name in "ab"]


def test_it_is_still_prepared_and_readers_stop_before_it(path: Path) -> None:
    put(Log(path), "a", [7])  # nobody waits for the dead one, but to read
    for _ in range(2):  # nor does the time-out of open transactions touch it
        log = Log(path)
        (prepared,) = log.transactions.prepared()
        assert (prepared.writer.owner, prepared.participants) == ("writer", (("a", 0), ("b", 0)))
        assert committed(path) == [[0, 1], [0, 1]]
        assert log.topic("a").stable_ends() == [2]
        uncommitted = log.topic("a").reader(0, isolation="read_uncommitted").read_table()
        assert ids_of(uncommitted) == [0, 1, DEAD, 7]


@pytest.mark.parametrize("outcome", ["commit", "abort"])
def test_it_is_decided_by_hand(path: Path, outcome: str) -> None:
    put(Log(path), "a", [7])
    waiting = Log(path).consumer(["a", "b"])
    before = [ids_of(waiting.poll()), ids_of(waiting.poll())]
    assert before == [[0, 1], [0, 1]]
    decide(path, outcome)
    own = [DEAD] if outcome == "commit" else []
    assert committed(path) == [[0, 1, *own, 7], [0, 1, *own]]
    after: list[int] = []
    while (batch := waiting.poll()) is not None:
        after += ids_of(batch)
    assert sorted(after) == sorted([*own, *own, 7])
    assert Log(path).transactions.prepared() == []


def test_the_next_life_of_its_owner_aborts_it_and_does_it_again(path: Path) -> None:
    with WriterProcess(path, "undecided:2", 3) as writer:
        writer.go()
        assert writer.acked() == [2, 3]
    assert committed(path) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    (prepared,) = Log(path).transactions.prepared()  # row 4, which this life left
    decide(path, "commit")
    assert committed(path) == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert prepared.writer.epoch == 6
