"""Text to columns: JSON lines and CSV become Arrow tables, and a bad line is known by its number.

Arrow parses a whole chunk at once and does not say which line it could not read, so a chunk
that fails is halved until its first bad line is found; good input never pays for that.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from millstream.cli.json_values import has_floats, is_plain, read_lines
from millstream.errors import SchemaMismatchError, nearest

CHUNK_BYTES = 1 << 20
SHOWN_CHARACTERS_MAX = 120
TIME = pa.timestamp("us", tz="UTC")


class ByteStream(Protocol):
    """A file, a pipe or a buffer, open for reading bytes."""

    def read1(self, size: int, /) -> bytes:
        """Return at most `size` bytes of what is there; nothing at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records of the input: their bytes, and the number of the line each begins at."""

    records: list[bytes]
    lines: list[int]


class Format(Protocol):
    """How records become columns."""

    def read(self, records: list[bytes]) -> pa.Table:
        """Return one row per record; raises `pyarrow.ArrowInvalid`."""
        ...

    def explain(self, record: bytes) -> str:
        """Return what is wrong with a record that `read` refused, where it can be told."""
        ...


class JsonLines:
    """One JSON object a line; `schema` is `None` while it is still to be inferred."""

    def __init__(self, schema: pa.Schema | None) -> None:
        self._schema = schema
        # A null that the topic forbids is found by `parse_chunk`, which can name the column.
        self._lenient = schema and pa.schema([field.with_nullable(True) for field in schema])
        self._is_plain = schema is None or all(is_plain(field.type) for field in schema)
        self._has_floats = schema is not None and any(has_floats(field.type) for field in schema)

    def read(self, records: list[bytes]) -> pa.Table:
        """Return one row per line; fields that a line leaves out are null."""
        if self._lenient is None:
            return self._parsed(records)
        if self._is_plain:
            try:
                return self._parsed(records)
            except pa.ArrowInvalid:
                if not self._has_floats:  # else one may be written as "NaN"
                    raise
        return read_lines(records, self._lenient)

    def _parsed(self, records: list[bytes]) -> pa.Table:
        options = pyarrow.json.ParseOptions(
            explicit_schema=self._lenient,
            unexpected_field_behavior="infer" if self._schema is None else "error",
        )
        table = pyarrow.json.read_json(
            io.BytesIO(b"".join(records)),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=2 * CHUNK_BYTES),
            parse_options=options,
        )
        return _with_utc(table) if self._schema is None else table

    def explain(self, record: bytes) -> str:
        """Return the parser's complaint, or the field that the topic does not have."""
        try:
            fields = json.loads(record)
        except ValueError as error:
            return f"not JSON: {error}"
        if not isinstance(fields, dict):
            return "not a JSON object"
        for name in fields:
            if self._schema is not None and name not in self._schema.names:
                return f"the topic has no column {name!r}" + nearest(name, self._schema.names)
        return _complaint(self.read, record)


class Csv:
    """Comma-separated values; the first record names the columns."""

    def __init__(self, schema: pa.Schema | None, header: bytes) -> None:
        self._schema = schema
        self._header = header
        names = pyarrow.csv.read_csv(io.BytesIO(header)).column_names
        if schema is not None:
            for name in names:
                if name not in schema.names:
                    message = f"line 1: the topic has no column {name!r}"
                    raise SchemaMismatchError(message + nearest(name, schema.names))

    def read(self, records: list[bytes]) -> pa.Table:
        """Return one row per record; an empty field is null unless it is text."""
        table = pyarrow.csv.read_csv(
            io.BytesIO(self._header + b"".join(records)),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=2 * CHUNK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=self._schema),
        )
        if self._schema is None:
            return _with_utc(table)
        columns = [
            table[field.name]
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in self._schema
        ]
        return pa.table(columns, self._schema.names)

    def explain(self, record: bytes) -> str:
        """Return the parser's complaint."""
        return _complaint(self.read, record)


def read_chunks(stream: ByteStream, *, quoted: bool) -> Iterator[Chunk]:
    """Yield the records of `stream` as they come in, blank lines left out.

    Parameters
    ----------
    stream
        Open for reading bytes. What is there is taken; the end of a pipe need not be near.
    quoted
        Whether a line break inside double quotes belongs to the record (CSV).
    """
    line, pending, pending_line = 1, b"", 1
    rest = b""
    while True:
        read = stream.read1(CHUNK_BYTES)
        *pieces, rest = (rest + (read or b"\n")).split(b"\n")
        chunk = Chunk([], [])
        for piece in pieces:
            pending += piece + b"\n"
            line += 1
            if quoted and read and pending.count(b'"') % 2 == 1:
                continue
            if pending.strip():
                chunk.records.append(pending)
                chunk.lines.append(pending_line)
            pending, pending_line = b"", line
        if chunk.records:
            yield chunk
        if not read:
            return


def parse_chunk(
    chunk: Chunk, form: Format, schema: pa.Schema | None
) -> tuple[pa.Table | None, str | None]:
    """Return the rows before the first bad record, and what is wrong with that record.

    The second is `None` when all is well, the first when not even one row is.
    """
    good, complaint = _longest_good(chunk, form)
    table = form.read(chunk.records[:good]) if good else None
    if table is not None and schema is not None:
        missing = _first_null(table, schema)
        if missing is not None:
            good, name = missing
            table = table.slice(0, good) if good else None
            complaint = f"column {name!r} must not be null"
        if table is not None:
            table = pa.table([table[name] for name in schema.names], schema)
    if complaint is None:
        return table, None
    shown = chunk.records[good].decode("utf-8", "backslashreplace").rstrip()
    if len(shown) > SHOWN_CHARACTERS_MAX:
        shown = shown[:SHOWN_CHARACTERS_MAX] + "…"
    return table, f"line {chunk.lines[good]}: {complaint}; the line is: {shown}"


def _longest_good(chunk: Chunk, form: Format) -> tuple[int, str | None]:
    """Return how many records, from the first, can be read, and why the next cannot."""
    if _readable(form, chunk.records):
        return len(chunk.records), None
    good, bad = 0, len(chunk.records)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _readable(form, chunk.records[:middle]):
            good = middle
        else:
            bad = middle
    return good, form.explain(chunk.records[good])


def _readable(form: Format, records: list[bytes]) -> bool:
    try:
        return form.read(records).num_rows == len(records)
    except pa.ArrowInvalid:
        return False


def _complaint(read: Callable[[list[bytes]], pa.Table], record: bytes) -> str:
    try:
        read([record])
    except pa.ArrowInvalid as error:
        return str(error).removesuffix(" in row 0")
    return "its values do not have the types of the lines before it"


def _first_null(table: pa.Table, schema: pa.Schema) -> tuple[int, str] | None:
    """Return row and column of the first null where `schema` allows none."""
    found = [
        (pc.index(pc.is_null(table[field.name]), value=True).as_py(), field.name)
        for field in schema
        if not field.nullable and table[field.name].null_count
    ]
    return min(found, default=None)


def _with_utc(table: pa.Table) -> pa.Table:
    """Return the table with every inferred timestamp in microseconds UTC, as topics have it."""
    fields = [
        pa.field(field.name, TIME) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
