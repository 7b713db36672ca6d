"""`millstream produce`: rows from a file or from standard input into a topic."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from millstream.cli.console import notes, rows_text
from millstream.cli.options import LogOption, names_of, open_log
from millstream.errors import OptionError, SchemaMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.cli.rows import ByteStream, Format
    from millstream.log import Log

RowFormat = Literal["jsonl", "csv"]
SUFFIXES: dict[str, RowFormat] = {
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def produce(
    topic: Annotated[str, typer.Argument(help="The topic to append to.", metavar="TOPIC")],
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines or CSV; standard input when left out.")
    ] = None,
    *,
    format_: Annotated[
        RowFormat | None,
        typer.Option("--format", help="By default told from the file's name, else jsonl."),
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
    """Append rows to a topic; a line that cannot be used is named by its number."""
    opened = open_log(log, create=create)

    def create_topic(schema: pa.Schema) -> None:
        opened.create_topic(topic, schema, partitions=partitions, key=names_of(key), time=time)
        notes.print(f"topic {topic!r} created")

    missing = create and topic not in opened.topic_names()
    with _open_input(file) as stream:
        written = append_text(
            stream, _format_of(file, format_), opened, topic, create_topic if missing else None
        )
    notes.print(f"{rows_text(written)} appended to {topic!r}")


def append_text(
    stream: ByteStream,
    format_: RowFormat,
    log: Log,
    topic: str,
    create_topic: Callable[[pa.Schema], None] | None,
) -> int:
    """Append the rows of `stream` to `topic` as they come in; return how many.

    `create_topic`, where given, is called first, with the schema of the first rows.

    Raises
    ------
    SchemaMismatchError
        At the first line that is no row of the topic; the rows before it are appended.
    """
    from millstream.cli.rows import parse_chunk, read_chunks

    schema = log.topic(topic).schema if create_topic is None else None
    chunks = read_chunks(stream, quoted=format_ == "csv")
    first = next(chunks, None)
    if first is None:
        return 0
    header = b""
    if format_ == "csv":
        header = first.records.pop(0)
        first.lines.pop(0)
    if create_topic is not None:
        inferred, complaint = parse_chunk(first, _reader(format_, None, header), None)
        if inferred is None:
            message = f"the columns of {topic!r} cannot be inferred: {complaint or 'no rows'}"
            raise SchemaMismatchError(message)
        schema = inferred.schema
        create_topic(schema)
    form = _reader(format_, schema, header)
    written = 0
    with log.producer(topic) as producer:
        for chunk in itertools.chain([first], chunks):
            table, complaint = parse_chunk(chunk, form, schema)
            if table is not None:
                producer.append(table)
                producer.flush()
                written += table.num_rows
            if complaint is not None:
                message = f"{complaint}; what came before it was appended ({rows_text(written)})"
                raise SchemaMismatchError(message)
    return written


def _reader(format_: RowFormat, schema: pa.Schema | None, header: bytes) -> Format:
    from millstream.cli.rows import Csv, JsonLines

    return JsonLines(schema) if format_ == "jsonl" else Csv(schema, header)


def _format_of(file: Path | None, given: RowFormat | None) -> RowFormat:
    if given is not None:
        return given
    if file is None:
        return "jsonl"
    if file.suffix.lower() not in SUFFIXES:
        message = (
            f"the format of {str(file)!r} cannot be told from its name; "
            "give it: --format jsonl or --format csv"
        )
        raise OptionError(message)
    return SUFFIXES[file.suffix.lower()]


def _open_input(file: Path | None) -> AbstractContextManager[ByteStream]:
    if file is None:
        return nullcontext(cast("ByteStream", sys.stdin.buffer))
    try:
        return file.open("rb")
    except OSError as error:
        message = f"cannot read {str(file)!r}: {error.strerror}"
        raise OptionError(message) from error
