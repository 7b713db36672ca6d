"""`millstream produce`: rows from a pipe or a file, and what is said of those that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millstream.log import Log
from tests.cli.conftest import Command


def test_a_topic_is_created_with_the_columns_of_the_first_rows(
    millstream: Command, log_directory: Path
) -> None:
    code, _, error = millstream(
        "produce", "new", "--create", "--partitions", 3, "--key", "user, n", "--time", "at",
        stdin=b'{"at": "2024-01-01T10:00:00Z", "user": "a", "n": 1}\n',
    )  # fmt: skip
    assert (code, error) == (0, "topic 'new' created\n1 row appended to 'new'\n")
    config = Log(log_directory).topic("new").config
    assert (config.partitions, config.key, config.time) == (3, ("user", "n"), "at")
    assert [str(each) for each in config.schema.types] == [
        "timestamp[us, tz=UTC]",
        "string",
        "int64",
    ]


@pytest.mark.usefixtures("clicks")
def test_create_leaves_a_topic_that_is_there_as_it_is(millstream: Command) -> None:
    code, _, error = millstream("produce", "clicks", "--create", stdin=b'{"n": 8}\n')
    assert (code, error) == (0, "1 row appended to 'clicks'\n")


@pytest.mark.usefixtures("clicks")
def test_nothing_to_append_is_no_error(millstream: Command) -> None:
    assert millstream("produce", "clicks", stdin=b"\n\n") == (
        0,
        "",
        "0 rows appended to 'clicks'\n",
    )


@pytest.mark.usefixtures("clicks")
def test_a_bad_line_is_named_and_the_rows_before_it_stay(millstream: Command) -> None:
    code, _, error = millstream("produce", "clicks", stdin=b'{"n": 100}\n\n{"n": "x"}\n')
    assert code == 2
    assert "line 3: " in error
    assert "what came before it was appended (1 row)" in error
    _, out, _ = millstream("consume", "clicks", "--from", "8", "--format", "jsonl")
    assert [json.loads(line)["n"] for line in out.splitlines()] == [100]


def test_columns_that_cannot_be_told_create_nothing(
    millstream: Command, log_directory: Path
) -> None:
    code, _, error = millstream("produce", "new", "--create", stdin=b"nonsense\n")
    assert code == 2
    assert "the columns of 'new' cannot be inferred: line 1: not JSON" in error
    assert Log(log_directory).topic_names() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--key", "usr"], "no column 'usr' for its key or time; did you mean 'user'?"),
        (["--time", "user"], "the time column 'user' must be a timestamp"),
        (["--partitions", "0"], "needs 1 to 4096 partitions; got 0"),
    ],
)
def test_options_of_a_new_topic_are_checked(
    millstream: Command, options: list[str], words: str
) -> None:
    code, _, error = millstream("produce", "new", "--create", *options, stdin=b'{"user": "a"}\n')
    assert code == 2
    assert words in error.replace("of topic 'new' ", "")


def test_a_name_that_cannot_be_a_topics(millstream: Command) -> None:
    code, _, error = millstream("produce", "a/b", "--create", stdin=b'{"n": 1}\n')
    assert code == 2
    assert "'a/b' cannot be a topic's name" in error


def test_a_missing_file(millstream: Command, tmp_path: Path) -> None:
    code, _, error = millstream("produce", "clicks", tmp_path / "none.csv", "--create")
    assert code == 2
    assert "No such file" in error


def test_a_format_that_cannot_be_told(millstream: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a\n1\n")
    code, _, error = millstream("produce", "clicks", tmp_path / "rows.txt", "--create")
    assert code == 2
    assert "--format" in error
