"""What `produce` reads: text line by line, Parquet and Arrow batch by batch, with its progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from millstream.cli.console import notes
from millstream.errors import OptionError, SchemaMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.cli.rows import Chunk, Format

InputFormat = Literal["jsonl", "csv", "parquet", "arrow"]
SUFFIXES: dict[str, InputFormat] = {
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
STANDARD_INPUT = "standard input"

OnBad = Callable[["TextInput", bytes, str], None]
"""Takes a line that cannot be used, and what is wrong with it."""


class Input:
    """Rows that come one table after another.

    Parameters
    ----------
    raw
        The file, open for reading bytes.
    size_bytes
        Of the file, where it is known.

    Attributes
    ----------
    schema
        Their columns; `None`: there are no rows.
    """

    schema: pa.Schema | None = None

    def __init__(self, raw: Any, size_bytes: int | None) -> None:
        self._raw = raw
        self.size_bytes = size_bytes

    def position(self) -> int:
        """Return how many bytes were read, as far as that is known."""
        return int(self._raw.tell()) if self.size_bytes is not None else 0

    def read(self, on_bad: OnBad | None) -> pa.Table | pa.RecordBatch | None:
        """Return the next rows; `None`: there are no more.

        Raises `SchemaMismatchError` at a line that cannot be used, unless `on_bad` takes it.
        """
        raise NotImplementedError


def format_of(file: Path | None, given: InputFormat | None) -> InputFormat:
    """Return the format that was given, or that a file's name tells."""
    if given is not None:
        return given
    if file is None:
        return "jsonl"
    if file.suffix.lower() not in SUFFIXES:
        message = (
            f"the format of {str(file)!r} cannot be told from its name; "
            "give it: --format jsonl, csv, parquet or arrow"
        )
        raise OptionError(message)
    return SUFFIXES[file.suffix.lower()]


@contextmanager
def open_input(
    file: Path | None, format_: InputFormat, schema: pa.Schema | None, topic: str
) -> Iterator[Input]:
    """Open a file or standard input.

    Parameters
    ----------
    schema
        Of the topic, by which text is read; `None`: it is inferred from the first lines.
    topic
        The topic's name, for messages.

    Raises
    ------
    OptionError
        Where the file cannot be read.
    SchemaMismatchError
        Where no columns can be inferred from the first line, or a header names others.
    """
    name = STANDARD_INPUT if file is None else str(file)
    try:
        raw: Any = sys.stdin.buffer if file is None else file.open("rb")
    except OSError as error:
        message = f"cannot read {name!r}: {error.strerror}"
        raise OptionError(message) from error
    try:
        size_bytes = None if file is None else file.stat().st_size
        if format_ in {"jsonl", "csv"}:
            yield TextInput(raw, size_bytes, format_=format_, schema=schema, topic=topic, name=name)
        else:
            yield BatchInput(raw, size_bytes, format_=format_, name=name)
    finally:
        if file is not None:
            raw.close()


class TextInput(Input):
    """Lines of text; see `open_input`."""

    def __init__(
        self,
        raw: Any,
        size_bytes: int | None,
        *,
        format_: InputFormat,
        schema: pa.Schema | None,
        topic: str,
        name: str,
    ) -> None:
        from millstream.cli.rows import parse_chunk, read_chunks

        super().__init__(raw, size_bytes)
        self._chunks = read_chunks(raw, quoted=format_ == "csv")
        self._name = name
        self._chunk: Chunk | None = next(self._chunks, None)
        self.header = b""
        if self._chunk is None:
            return
        if format_ == "csv":
            self.header = self._chunk.records.pop(0)
            self._chunk.lines.pop(0)
        if schema is None:
            form = _form(format_, None, self.header)
            inferred, complaint = parse_chunk(self._chunk, form, None)
            if inferred is None:
                message = f"the columns of {topic!r} cannot be inferred: {complaint or 'no rows'}"
                raise SchemaMismatchError(message)
            schema = inferred.schema
        self.schema = schema
        self._form = _form(format_, schema, self.header)

    def read(self, on_bad: OnBad | None) -> pa.Table | None:
        """Return the rows up to the next bad line, or of some more lines."""
        from millstream.cli.rows import Chunk, parse_chunk

        while (chunk := self._chunk) is not None:
            table, complaint = parse_chunk(chunk, self._form, self.schema)
            if complaint is None:
                self._chunk = next(self._chunks, None)
                if table is not None and table.num_rows:
                    return table
                continue
            good = 0 if table is None else table.num_rows
            if table is not None:
                # First what came before it: the next read tells of the line.
                self._chunk = Chunk(chunk.records[good:], chunk.lines[good:])
                return table
            complaint = f"{self._name}, {complaint}"
            if on_bad is None:
                raise SchemaMismatchError(complaint)
            on_bad(self, chunk.records[0], complaint)
            rest = Chunk(chunk.records[1:], chunk.lines[1:])
            self._chunk = rest if rest.records else next(self._chunks, None)
        return None


class BatchInput(Input):
    """Batches of a file that has columns already."""

    def __init__(
        self, raw: Any, size_bytes: int | None, *, format_: InputFormat, name: str
    ) -> None:
        super().__init__(raw, size_bytes)
        self.schema, self._batches = _batches(raw, format_, name)

    def read(self, on_bad: OnBad | None) -> pa.RecordBatch | None:
        """Return the next batch."""
        del on_bad
        return next(self._batches, None)


def _form(format_: InputFormat, schema: pa.Schema | None, header: bytes) -> Format:
    from millstream.cli.rows import Csv, JsonLines

    return JsonLines(schema) if format_ == "jsonl" else Csv(schema, header)


def _batches(
    stream: Any, format_: InputFormat, name: str
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the columns and the batches of a Parquet file, or an Arrow file or stream."""
    import pyarrow as pa

    try:
        if format_ == "parquet":
            import pyarrow.parquet

            content = stream if stream.seekable() else pa.BufferReader(stream.read())
            file = pyarrow.parquet.ParquetFile(content)
            return file.schema_arrow, _told(file.iter_batches(), name)
        if stream.seekable() and stream.read(6) == b"ARROW1":
            stream.seek(0)
            reader = pa.ipc.open_file(stream)
            numbers = range(reader.num_record_batches)
            return reader.schema, _told((reader.get_batch(n) for n in numbers), name)
        if stream.seekable():
            stream.seek(0)
        opened = pa.ipc.open_stream(stream)
        return opened.schema, _told(iter(opened), name)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(name, format_, error) from error


def _told(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[pa.RecordBatch]:
    """Yield batches; what cannot be read in the middle of a file is told with its name."""
    import pyarrow as pa

    try:
        yield from batches
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(name, "further", error) from error


def _unreadable(name: str, what: str, error: Exception) -> SchemaMismatchError:
    return SchemaMismatchError(f"{name} cannot be read as {what}: {error}")


@contextmanager
def progress_of(source: Input) -> Iterator[Callable[[], None]]:
    """Give what is called after each piece; on a terminal it moves a bar."""
    if not notes.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=notes, transient=True) as progress:
        bar = progress.add_task("", total=source.size_bytes)
        yield lambda: progress.update(bar, completed=source.position())
