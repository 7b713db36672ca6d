"""`millstream produce`: rows from a file or from standard input into a topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import notes, rows_text
from millstream.cli.headers import RowHeaders
from millstream.cli.input import InputFormat, format_of, open_input, progress_of
from millstream.cli.options import LogOption, names_of, open_log
from millstream.errors import OptionError, SchemaMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.cli.input import Input, TextInput
    from millstream.log.producer import Producer

COMPLAINTS_SHOWN = 5

HeaderOption = Annotated[
    list[str] | None,
    typer.Option(help="A header for all rows; may be repeated.", metavar="KEY=VALUE"),
]
HeaderFieldOption = Annotated[
    list[str] | None,
    typer.Option(help="A field whose value is a header of its row; may be repeated."),
]
ProducerIdOption = Annotated[
    str | None,
    typer.Option(help="Name of this import: run again with the same file, it stores no row twice."),
]
BadLinesOption = Annotated[
    Path | None,
    typer.Option(help="Go on at a line that cannot be used, and write it to this file."),
]


def produce(
    topic: Annotated[str, typer.Argument(help="The topic to append to.", metavar="TOPIC")],
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON lines, CSV, Parquet or Arrow; standard input when left out."),
    ] = None,
    *,
    format_: Annotated[
        InputFormat | None,
        typer.Option("--format", help="By default told from the file's name, else jsonl."),
    ] = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Append all rows to this partition.")
    ] = None,
    header: HeaderOption = None,
    header_field: HeaderFieldOption = None,
    producer_id: ProducerIdOption = None,
    bad_lines: BadLinesOption = None,
    create: Annotated[
        bool,
        typer.Option("--create", help="Create a missing topic with the columns of the first rows."),
    ] = False,
    partitions: Annotated[int, typer.Option(help="Of a topic that is created.")] = 1,
    key: Annotated[
        str, typer.Option(help="Key columns of a topic that is created, separated by commas.")
    ] = "",
    time: Annotated[
        str | None, typer.Option(help="Time column of a topic that is created.")
    ] = None,
    log: LogOption = None,
) -> None:
    """Append rows to a topic; a line that cannot be used is named by its number.

    Without --bad-lines the first such line ends it. The rows before it are appended then, and
    their number is told; none of the line's is.

    With --producer-id, a run goes on where an earlier one of the same id ended or was killed, in
    the same file, which may have grown at its end. Another file needs another id.
    """
    opened = open_log(log, create=create)
    kind = format_of(file, format_)
    _check(kind, file, bad_lines, producer_id)
    headers = RowHeaders.of(header or [], header_field or [])

    def create_topic(schema: pa.Schema) -> None:
        schema = headers.topic_schema(schema)
        opened.create_topic(topic, schema, partitions=partitions, key=names_of(key), time=time)
        notes.print(f"topic {topic!r} created")

    is_missing = create and topic not in opened.topic_names()
    schema = None if is_missing else opened.topic(topic).schema
    if partition is not None and not is_missing:
        opened.topic(topic).partition(partition)  # raises where there is none
    bad = None if bad_lines is None else BadLines(bad_lines)
    run = _Run(partition, headers, bad)
    if schema is not None:
        schema = headers.input_schema(schema)
    with open_input(file, kind, schema, topic) as source:
        if is_missing and source.schema is not None:
            create_topic(source.schema)
        if source.schema is not None:
            run.append_all(source, opened.producer(topic, name=producer_id))
    notes.print(f"{rows_text(run.written)} appended to {topic!r}{run.there_already()}")
    if bad is not None:
        bad.tell()


def _check(
    kind: InputFormat, file: Path | None, bad_lines: Path | None, producer_id: str | None
) -> None:
    """Raise `OptionError` where options do not go together."""
    if bad_lines is not None and kind not in {"jsonl", "csv"}:
        message = f"--bad-lines is for text; {kind} has no lines"
        raise OptionError(message)
    if producer_id is not None and file is None:
        message = "--producer-id is for a file, which can be read again; standard input cannot"
        raise OptionError(message)


class _Run:
    """One run of the command, and how far it is.

    Attributes
    ----------
    written, skipped
        Rows that were appended, and that an earlier run had appended.
    """

    def __init__(self, partition: int | None, headers: RowHeaders, bad: BadLines | None) -> None:
        self._partition = partition
        self._headers = headers
        self._bad = bad
        self.written = 0
        self.skipped = 0

    def append_all(self, source: Input, producer: Producer) -> None:
        """Append what is read, piece by piece; a bar shows how far it is."""
        # The number of an append is that of the input's rows up to its end: each is durable before
        # the next is begun, and the last one of an earlier run, which may be there in part, is
        # made again.
        known = producer.sequence if producer.is_named else 0
        with producer, progress_of(source) as advance:
            while True:
                try:
                    rows = source.read(None if self._bad is None else self._bad.keep)
                    if rows is None:
                        return
                    for piece in _cut(rows, known - self.written - self.skipped):
                        self._append(piece, producer, known)
                except SchemaMismatchError as error:
                    rows_before = rows_text(self.written)
                    message = f"{error}; what came before it was appended ({rows_before})"
                    raise SchemaMismatchError(message) from error
                advance()

    def _append(self, rows: pa.Table | pa.RecordBatch, producer: Producer, known: int) -> None:
        """Append rows, unless they are before the last append of an earlier run."""
        end = self.written + self.skipped + rows.num_rows
        if end >= known:
            rows, headers = self._headers.split(rows, producer.config.schema)
            sequence = end if producer.is_named else None
            producer.append(rows, partition=self._partition, headers=headers, sequence=sequence)
            producer.flush()
        if end <= known:
            self.skipped += rows.num_rows
        else:
            self.written += rows.num_rows

    def there_already(self) -> str:
        """Return what is said of rows that an earlier run had appended."""
        return f"; {rows_text(self.skipped)} were there already" if self.skipped else ""


def _cut(rows: pa.Table | pa.RecordBatch, at: int) -> list[pa.Table | pa.RecordBatch]:
    """Return the rows up to row `at`, if it is among them, and those from there on."""
    return [rows.slice(0, at), rows.slice(at)] if 0 < at < rows.num_rows else [rows]


class BadLines:
    """Lines that cannot be used, in a file that is made for the first of them.

    Parameters
    ----------
    path
        Of the file, which must not be there yet.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            message = f"{str(path)!r} exists; bad lines go to a file of their own"
            raise OptionError(message)
        self._path = path
        self._count = 0

    def keep(self, source: TextInput, record: bytes, complaint: str) -> None:
        """Write a line as it was, behind the header if there is one, and say what is wrong."""
        with self._path.open("ab") as file:
            if self._count == 0:
                file.write(source.header)
            file.write(record)
        self._count += 1
        if self._count <= COMPLAINTS_SHOWN:
            notes.print(complaint, markup=False, soft_wrap=True)
        elif self._count == COMPLAINTS_SHOWN + 1:
            notes.print("…")

    def tell(self) -> None:
        """Say how many there were."""
        if self._count:
            lines = "1 line" if self._count == 1 else f"{self._count:,} lines"
            text = f"{lines} could not be used: see {self._path}"
            notes.print(text, markup=False, soft_wrap=True)
