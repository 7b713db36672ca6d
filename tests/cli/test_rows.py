from __future__ import annotations

import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.cli import rows
from millstream.cli.rows import Csv, JsonLines, parse_chunk, read_chunks
from millstream.errors import SchemaMismatchError

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [pa.field("t", TIME), pa.field("n", pa.int32(), nullable=False), pa.field("s", pa.string())]
)


def parse(text: bytes, schema: pa.Schema | None = SCHEMA) -> tuple[pa.Table | None, str | None]:
    (chunk,) = read_chunks(io.BytesIO(text), quoted=False)
    return parse_chunk(chunk, JsonLines(schema), schema)


def parse_csv(text: bytes, schema: pa.Schema | None = SCHEMA) -> tuple[pa.Table | None, str | None]:
    (chunk,) = read_chunks(io.BytesIO(text), quoted=True)
    header = chunk.records.pop(0)
    chunk.lines.pop(0)
    return parse_chunk(chunk, Csv(schema, header), schema)


class Trickle:
    """A pipe that gives its bytes in pieces of the given sizes."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._content = content
        self._sizes = sizes

    def read1(self, _: int, /) -> bytes:
        size = self._sizes.pop(0) if self._sizes else len(self._content)
        piece, self._content = self._content[:size], self._content[size:]
        return piece


def test_json_lines_become_typed_columns() -> None:
    table, complaint = parse(b'{"t": "2013-01-01T10:00:00Z", "n": 1, "s": "x"}\n\n{"n": 2}\n')
    assert complaint is None
    assert table is not None
    assert table.schema.types == SCHEMA.types
    assert table["n"].to_pylist() == [1, 2]
    assert table["s"].to_pylist() == ["x", None]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"n": "two"}', "to string"),
        (b'{"n": 5000000000}', "5000000000"),
        (b'{"n": 2', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"n": 2, "ss": "x"}', "no column 'ss'; did you mean 's'?"),
        (b'{"s": "x"}', "column 'n' must not be null"),
    ],
)
def test_a_bad_line_is_named_and_the_rows_before_it_are_kept(line: bytes, words: str) -> None:
    table, complaint = parse(b'{"n": 1}\n\n{"n": 2}\n' + line + b'\n{"n": 3}\n')
    assert table is not None
    assert table["n"].to_pylist() == [1, 2]
    assert complaint is not None
    assert complaint.startswith("line 4: ")
    assert words in complaint
    assert line.decode() in complaint


def test_the_first_line_can_be_bad() -> None:
    table, complaint = parse(b"nonsense\n")
    assert table is None
    assert complaint is not None
    assert complaint.startswith("line 1: not JSON")


def test_a_long_line_is_cut_in_the_message() -> None:
    _, complaint = parse(b'{"n": "' + b"x" * 5_000 + b'"}\n')
    assert complaint is not None
    assert len(complaint) < 400


def test_columns_are_inferred() -> None:
    table, complaint = parse(b'{"t": "2013-01-01T10:00:00Z", "n": 1, "f": 1.5, "s": "x"}\n', None)
    assert complaint is None
    assert table is not None
    assert table.schema.types == [TIME, pa.int64(), pa.float64(), pa.string()]


def test_csv_becomes_typed_columns_and_missing_ones_are_null() -> None:
    table, complaint = parse_csv(b'n,s\n1,"a, ""b""\nc"\n2,\n')
    assert complaint is None
    assert table is not None
    assert table.column_names == SCHEMA.names
    assert table["s"].to_pylist() == ['a, "b"\nc', ""]
    assert table["t"].null_count == 2


def test_a_bad_csv_line_is_named() -> None:
    table, complaint = parse_csv(b'n,s\n1,"two\nlines"\nx,y\n')
    assert table is not None
    assert table.num_rows == 1
    assert complaint is not None
    assert complaint.startswith("line 4: ")
    _, short = parse_csv(b"n,s\n1\n")
    assert short is not None
    assert "line 2" in short


def test_an_unknown_csv_column_is_named() -> None:
    with pytest.raises(SchemaMismatchError, match="no column 'nn'; did you mean 'n'"):
        Csv(SCHEMA, b"nn,s\n")


@given(
    st.lists(st.sampled_from([b"a", b"bb", b'"x\ny"', b"", b"  "]), max_size=12),
    st.lists(st.integers(1, 5), max_size=30),
    st.booleans(),
)
def test_records_do_not_depend_on_how_bytes_arrive(
    records: list[bytes], sizes: list[int], ends_with_newline: bool
) -> None:
    text = b"\n".join(records) + (b"\n" if ends_with_newline else b"")
    expected, line = [], 1
    for record in records:
        if record.strip():
            expected.append((line, record + b"\n"))
        line += record.count(b"\n") + 1
    got = [
        pair
        for chunk in read_chunks(Trickle(text, sizes), quoted=True)
        for pair in zip(chunk.lines, chunk.records, strict=True)
    ]
    assert got == expected


def test_a_stream_of_many_chunks_counts_lines_on() -> None:
    line = b'{"n": 1, "s": "' + b"x" * 1_000 + b'"}\n'
    count = 3 * rows.CHUNK_BYTES // len(line)
    chunks = list(read_chunks(io.BytesIO(line * count), quoted=False))
    assert len(chunks) > 1
    assert chunks[-1].lines[-1] == count
    parsed = [parse_chunk(chunk, JsonLines(SCHEMA), SCHEMA) for chunk in chunks]
    assert sum(table.num_rows for table, _ in parsed if table is not None) == count
    assert all(complaint is None for _, complaint in parsed)
