"""`millstream topics create|alter|delete`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from millstream.cli.columns import parse_column
from millstream.errors import OptionError
from millstream.log import Log
from tests.cli.conftest import Command


def test_a_topic_is_created_as_asked(millstream: Command, log_directory: Path) -> None:
    code, _, error = millstream(
        "topics", "create", "trades",
        "--column", "symbol string not null", "--column", "at timestamp[us, UTC]",
        "--column", "price decimal(10, 2)", "--partitions", "3", "--key", "symbol",
        "--time", "at", "--durability", "os", "--config", "segment.bytes=1000000",
    )  # fmt: skip
    assert code == 0, error
    config = Log(log_directory).topic("trades").config
    assert config.schema == pa.schema(
        [
            pa.field("symbol", pa.string(), nullable=False),
            ("at", pa.timestamp("us", "UTC")),
            ("price", pa.decimal128(10, 2)),
        ]
    )
    assert (config.partitions, config.key, config.time, config.durability) == (
        3, ("symbol",), "at", "os",
    )  # fmt: skip
    assert config.settings.segment_bytes == 1_000_000
    code, _, error = millstream("topics", "create", "trades", "--opaque")
    assert (code, "exists already" in error) == (2, True)
    assert millstream("topics", "create", "trades", "--opaque", "--if-not-exists")[0] == 0


def test_columns_come_from_a_file_or_are_bytes(
    millstream: Command, log_directory: Path, tmp_path: Path
) -> None:
    rows = pa.table({"a": [{"b": 1}], "c": [[1.5]]})
    pyarrow.parquet.write_table(rows, tmp_path / "rows.parquet")
    assert millstream("topics", "create", "p", "--schema", tmp_path / "rows.parquet")[0] == 0
    with (
        pa.OSFile(str(tmp_path / "rows.arrow"), "w") as file,
        pa.ipc.new_file(file, rows.schema) as writer,
    ):
        writer.write_table(rows)
    assert millstream("topics", "create", "i", "--schema", tmp_path / "rows.arrow")[0] == 0
    assert millstream("topics", "create", "o", "--opaque")[0] == 0
    log = Log(log_directory)
    types = {"a": pa.struct([("b", pa.int64())]), "c": pa.list_(pa.float64())}
    for name in "pi":
        assert {each.name: each.type for each in log.topic(name).schema} == types
    assert log.topic("o").config.key == ("key",)
    (tmp_path / "none.arrow").write_bytes(b"no columns here")
    code, _, error = millstream("topics", "create", "x", "--schema", tmp_path / "none.arrow")
    assert (code, "cannot read columns from" in error) == (2, True)


@pytest.mark.usefixtures("clicks")
def test_a_topic_gets_a_column_and_is_deleted(millstream: Command, log_directory: Path) -> None:
    code, out, _ = millstream("topics", "alter", "clicks", "--add-column", "page list<string>")
    assert (code, out) == (0, "page: list<item: string>\n")
    assert Log(log_directory).topic("clicks").to_arrow().column("page").null_count == 8
    code, _, error = millstream("topics", "alter", "clicks")
    assert (code, "--add-column" in error) == (2, True)
    code, _, error = millstream("topics", "delete", "clicks", stdin=b"n\n")
    assert (code, "was not deleted" in error) == (2, True)
    code, _, error = millstream("topics", "delete", "clicks", "--yes")
    assert (code, error) == (0, "topic 'clicks' with 8 rows deleted\n")
    assert Log(log_directory).topic_names() == []


@pytest.mark.parametrize(
    "text", ["id", "id nosuch", "id decimal(900)", "id list<nosuch>", "", "id timestamp[h]"]
)
def test_what_is_no_column_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="write a name and a type"):
        parse_column(text)


def test_every_example_is_a_type(millstream: Command) -> None:
    from millstream.cli.columns import EXAMPLES

    for each in EXAMPLES.replace(", UTC", "; UTC").replace("10, 2", "10; 2").split(", "):
        assert parse_column(f"x {each.replace(';', ',')}").nullable
    for arguments in ([], ["--opaque", "--column", "a int64"]):
        code, _, error = millstream("topics", "create", "x", *arguments)
        assert (code, "say which columns" in error) == (2, True)
    code, _, error = millstream("topics", "create", "x", "--opaque", "--durability", "no")
    assert (code, "--durability is fsync or os" in error) == (2, True)
