"""`millstream produce`: rows from a pipe or a file, and what is said of those that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
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


MIXED = b'{"n": 1}\nnonsense\n{"n": 2}\n\n{"n": "x"}\n{"m": 1}\n{"n": 3}\n'


@pytest.mark.usefixtures("clicks")
class TestBadLines:
    def test_they_go_to_a_file_and_the_others_are_appended(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "rows.jsonl").write_bytes(MIXED)
        bad = tmp_path / "bad"
        code, _, error = millstream(
            "produce", "clicks", tmp_path / "rows.jsonl", "--bad-lines", bad
        )
        assert code == 0
        assert "3 rows appended to 'clicks'" in error
        assert f"3 lines could not be used: see {bad}" in error
        assert f"{tmp_path / 'rows.jsonl'}, line 5: " in error
        assert bad.read_bytes() == b'nonsense\n{"n": "x"}\n{"m": 1}\n'
        assert _numbers(millstream) == [1, 2, 3]

    def test_lines_of_csv_stand_below_their_header(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        text = b'user,n\n"a\nb",1\nc,x\nd,2\n'
        code, _, error = millstream(
            "produce", "clicks", "--format", "csv", "--bad-lines", tmp_path / "bad", stdin=text
        )
        assert code == 0
        assert "standard input, line 4: " in error
        assert (tmp_path / "bad").read_bytes() == b"user,n\nc,x\n"
        assert _numbers(millstream) == [1, 2]

    def test_a_file_that_is_there_is_not_written_over(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "bad").touch()
        code, _, error = millstream(
            "produce", "clicks", "--bad-lines", tmp_path / "bad", stdin=MIXED
        )
        assert code == 2
        assert "exists; bad lines go to a file of their own" in error
        assert _numbers(millstream) == []

    def test_no_file_is_made_where_there_are_none(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        code, *_ = millstream(
            "produce", "clicks", "--bad-lines", tmp_path / "bad", stdin=b'{"n": 1}\n'
        )
        assert code == 0
        assert not (tmp_path / "bad").exists()

    def test_only_text_has_lines(self, millstream: Command, tmp_path: Path) -> None:
        code, _, error = millstream(
            "produce", "clicks", tmp_path / "x.parquet", "--bad-lines", tmp_path / "bad"
        )
        assert code == 2
        assert "--bad-lines is for text; parquet has no lines" in error


def _numbers(millstream: Command) -> list[int]:
    """What was appended to the eight clicks."""
    code, out, _ = millstream("consume", "clicks", "--from", "8", "--format", "jsonl")
    assert code == 0
    return [json.loads(line)["n"] for line in out.splitlines()]


@pytest.mark.usefixtures("clicks")
def test_all_rows_go_to_one_partition_where_that_is_asked(
    millstream: Command, log_directory: Path
) -> None:
    Log(log_directory).create_topic("many", pa.schema([("n", pa.int64())]), partitions=3)
    assert millstream("produce", "many", "--partition", 1, stdin=b'{"n": 1}\n' * 5)[0] == 0
    assert Log(log_directory).topic("many").stable_ends() == [0, 5, 0]
    code, _, error = millstream("produce", "many", "--partition", 3, stdin=b'{"n": 1}\n')
    assert code == 2
    assert "has partitions 0 to 2; got 3" in error


TABLE = pa.table(
    {"n": pa.array([1, None], pa.int32()), "tags": pa.array([["a"], []], pa.list_(pa.string()))}
)


def _write_table(path: Path) -> None:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(TABLE, path)
        return
    kind = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
    with kind(path, TABLE.schema) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
def test_columns_come_from_files_and_pipes(
    millstream: Command, tmp_path: Path, log_directory: Path, suffix: str
) -> None:
    path = tmp_path / f"rows{suffix}"
    _write_table(path)
    assert millstream("produce", "new", path, "--create")[0] == 0
    format_ = "parquet" if suffix == ".parquet" else "arrow"
    code, _, error = millstream("produce", "new", "--format", format_, stdin=path.read_bytes())
    assert code == 0, error
    assert Log(log_directory).topic("new").to_arrow().equals(pa.concat_tables([TABLE, TABLE]))


@pytest.mark.usefixtures("clicks")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.parquet", b"nonsense", "cannot be read as parquet"),
        ("x.arrow", b"nonsense", "cannot be read as arrow"),
    ],
)
def test_a_file_that_is_something_else(
    millstream: Command, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, _, error = millstream("produce", "clicks", tmp_path / name)
    assert code == 2
    assert f"{tmp_path / name} {words}" in error


@pytest.mark.usefixtures("clicks")
def test_columns_that_the_topic_does_not_have(millstream: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    _write_table(path)
    code, _, error = millstream("produce", "clicks", path)
    assert code == 2
    assert "'tags'" in error


def headers_in(log_directory: Path, topic: str) -> list[dict[str, bytes]]:
    """The headers of each row."""
    found = Log(log_directory).topic(topic).to_arrow(["_headers"]).column(0).to_pylist()
    return [{each["key"]: each["value"] for each in headers or []} for headers in found]


class TestHeaders:
    def test_they_are_the_same_for_all_or_from_fields(
        self, millstream: Command, log_directory: Path
    ) -> None:
        lines = b'{"user": "a", "trace": "t1"}\n{"user": "b"}\n'
        code, _, error = millstream(
            "produce", "new", "--create", "--header", "source=a=b", "--header-field", "trace",
            stdin=lines,
        )  # fmt: skip
        assert (code, error.splitlines()[-1]) == (0, "2 rows appended to 'new'")
        assert Log(log_directory).topic("new").schema.names == ["user"]
        assert headers_in(log_directory, "new") == [
            {"source": b"a=b", "trace": b"t1"},
            {"source": b"a=b"},
        ]

    @pytest.mark.usefixtures("clicks")
    def test_a_field_may_be_a_column_too(self, millstream: Command, log_directory: Path) -> None:
        lines = b'{"n": 100, "user": "a", "trace": "t1"}\n{"n": 101, "user": null}\n'
        options = ["--header", "source=x", "--header-field", "trace", "--header-field", "user"]
        code, _, _ = millstream("produce", "clicks", *options, stdin=lines)
        assert code == 0
        assert headers_in(log_directory, "clicks")[-2:] == [
            {"source": b"x", "trace": b"t1", "user": b"a"},
            {"source": b"x"},
        ]

    @pytest.mark.usefixtures("clicks")
    def test_what_is_none_is_refused(self, millstream: Command, tmp_path: Path) -> None:
        code, _, error = millstream("produce", "clicks", "--header", "x", stdin=b"")
        assert (code, "--header is KEY=VALUE; got 'x'" in error) == (2, True)
        file = tmp_path / "rows.parquet"
        pyarrow.parquet.write_table(pa.table({"n": [1]}), file)
        code, _, error = millstream("produce", "clicks", file, "--header-field", "trce")
        assert (code, "the input has no field 'trce' for a header" in error) == (2, True)


class TestProducerId:
    @pytest.mark.usefixtures("clicks")
    def test_a_file_that_has_grown_is_gone_on_with(
        self, millstream: Command, log_directory: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(b'{"n": 100}\n{"n": 101}\n')
        arguments = ["produce", "clicks", file, "--producer-id", "import", "--partition", 0]
        assert millstream(*arguments)[2] == "2 rows appended to 'clicks'\n"
        with file.open("ab") as opened:
            opened.write(b'{"n": 102}\n')
        said = "1 row appended to 'clicks'; 2 rows were there already\n"
        assert millstream(*arguments)[2] == said
        said = "0 rows appended to 'clicks'; 3 rows were there already\n"
        assert millstream(*arguments)[2] == said
        found = Log(log_directory).topic("clicks").to_arrow(["n"]).column("n").to_pylist()
        assert [each for each in found if each >= 100] == [100, 101, 102]

    @pytest.mark.usefixtures("clicks")
    def test_standard_input_cannot_be_read_again(self, millstream: Command) -> None:
        code, _, error = millstream("produce", "clicks", "--producer-id", "x", stdin=b"")
        assert (code, "--producer-id is for a file" in error) == (2, True)
