"""`millstream produce`: rows from a file or from standard input into a topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import notes, rows_text
from millstream.cli.input import InputFormat, format_of, open_input, progress_of
from millstream.cli.options import LogOption, names_of, open_log
from millstream.errors import OptionError, SchemaMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.cli.input import Input, TextInput
    from millstream.log.producer import Producer

COMPLAINTS_SHOWN = 5


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
    bad_lines: Annotated[
        Path | None,
        typer.Option(help="Go on at a line that cannot be used, and write it to this file."),
    ] = None,
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
    """
    opened = open_log(log, create=create)
    kind = format_of(file, format_)
    if bad_lines is not None and kind not in {"jsonl", "csv"}:
        message = f"--bad-lines is for text; {kind} has no lines"
        raise OptionError(message)

    def create_topic(schema: pa.Schema) -> None:
        opened.create_topic(topic, schema, partitions=partitions, key=names_of(key), time=time)
        notes.print(f"topic {topic!r} created")

    is_missing = create and topic not in opened.topic_names()
    schema = None if is_missing else opened.topic(topic).schema
    if partition is not None and not is_missing:
        opened.topic(topic).partition(partition)  # raises where there is none
    bad = None if bad_lines is None else BadLines(bad_lines)
    written = 0
    with open_input(file, kind, schema, topic) as source:
        if is_missing and source.schema is not None:
            create_topic(source.schema)
        if source.schema is not None:
            written = _append_all(source, opened.producer(topic), partition, bad)
    notes.print(f"{rows_text(written)} appended to {topic!r}")
    if bad is not None:
        bad.tell()


def _append_all(
    source: Input, producer: Producer, partition: int | None, bad: BadLines | None
) -> int:
    """Append what is read, piece by piece, and return how many rows; a bar shows how far it is."""
    written = 0
    with producer, progress_of(source) as advance:
        while True:
            try:
                rows = source.read(None if bad is None else bad.keep)
                if rows is None:
                    return written
                producer.append(rows, partition=partition)
            except SchemaMismatchError as error:
                message = f"{error}; what came before it was appended ({rows_text(written)})"
                raise SchemaMismatchError(message) from error
            producer.flush()
            written += rows.num_rows
            advance()


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
