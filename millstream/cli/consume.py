"""`millstream consume`: the rows of a topic, for a person or for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from millstream.cli.console import notes
from millstream.cli.options import LogOption, names_of, open_log
from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.log.consumer import Consumer
    from millstream.log.topic import Topic

OutputFormat = Literal["table", "jsonl", "csv", "arrow"]
TABLE_ROWS_DEFAULT = 20
SHOWN = ("partition", "offset", "timestamp", "headers", "op")
WAIT_US = 1_000_000
"""How long a wait for new rows lasts: Ctrl-C is heard in between."""


def consume(
    topic: Annotated[str, typer.Argument(help="The topic to read.", metavar="TOPIC")],
    *,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="beginning, end, an offset in each partition, or a time: 2024-01-31T12:00 (UTC "
            "where it has no zone).",
        ),
    ] = "beginning",
    partition: Annotated[
        str, typer.Option(help="Only these partitions, separated by commas.")
    ] = "",
    columns: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    where: Annotated[
        str, typer.Option(help="Only rows that fulfil this: \"delay > 60 and carrier = 'AA'\".")
    ] = "",
    show: Annotated[
        str,
        typer.Option(
            help=f"Also what the log knows of a row, separated by commas: {', '.join(SHOWN)}."
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many rows; a table shows 20 unless told."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for new rows, until Ctrl-C.")
    ] = False,
    format_: Annotated[
        OutputFormat, typer.Option("--format", help="arrow is an Arrow IPC stream.")
    ] = "table",
    log: LogOption = None,
) -> None:
    """Print the committed rows of a topic."""
    from millstream.cli.output import writer_of
    from millstream.cli.where import parse_where

    if format_ == "arrow" and sys.stdout.isatty():
        message = "an Arrow stream is nothing to look at: send it to a file or a pipe"
        raise OptionError(message)
    opened = open_log(log)
    source = opened.topic(topic)
    chosen = _shown(show) + (names_of(columns) or list(source.schema.names))
    schema = source.read_schema(chosen)
    condition = parse_where(where) if where else None
    consumer = opened.consumer(topic, columns=chosen, where=condition)
    _start(consumer, source, from_, partition)
    default = TABLE_ROWS_DEFAULT if format_ == "table" and limit is None and not follow else None
    batches = _limited(_read(consumer, follow=follow), limit or default)
    # Whoever follows a topic ends that with Ctrl-C: it is no failure.
    with suppress(KeyboardInterrupt) if follow else nullcontext():
        written = writer_of(format_, schema, source.name, follow=follow)(batches)
        if default is not None and written == default:
            notes.print(f"the first {written:,} rows; more with --limit")


def _shown(text: str) -> list[str]:
    names = names_of(text)
    for name in names:
        if name not in SHOWN:
            message = f"--show takes {', '.join(SHOWN)}; got {name!r}"
            raise OptionError(message)
    return [f"_{name}" for name in names]


def _start(consumer: Consumer, source: Topic, start: str, partitions: str) -> None:
    """Go where reading starts, in the partitions that are wanted.

    Partitions and offsets are those of the topic's present generation.
    """
    wanted = _partitions(partitions, source)
    if wanted or start.isdecimal():
        index = wanted[0] if wanted else 0
        first = source.partition(index).first_offset
        consumer.seek(index, first, generation=source.config.generation)
    others = [each.partition for each in consumer.partitions if each.partition not in wanted]
    if wanted and others:
        consumer.pause(*others)
    if start == "end":
        consumer.seek_end(*wanted)
    elif start.isdecimal():
        for index in wanted or range(source.partitions):
            first, end = source.partition(index).first_offset, source.stable_end(index)
            consumer.seek(index, min(max(int(start), first), end))
    elif start != "beginning":
        consumer.seek_time(_time_us(start), *wanted)


def _partitions(text: str, source: Topic) -> list[int]:
    names = names_of(text)
    for name in names:
        if not name.isdecimal():
            message = f"--partition takes numbers, separated by commas; got {name!r}"
            raise OptionError(message)
        source.partition(int(name))  # raises where there is none
    return [int(name) for name in names]


def _time_us(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = (
            "--from must be beginning, end, an offset or a time such as 2024-01-31T12:00; "
            f"got {text!r}"
        )
        raise OptionError(message) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _read(consumer: Consumer, *, follow: bool) -> Iterator[pa.RecordBatch]:
    """Yield what is committed; then, with `follow`, what is added."""
    yield from consumer
    while follow:
        batch = consumer.poll(WAIT_US)
        if batch is not None:
            yield batch


def _limited(batches: Iterator[pa.RecordBatch], rows_max: int | None) -> Iterator[pa.RecordBatch]:
    left = sys.maxsize if rows_max is None else rows_max
    for batch in batches:
        yield batch.slice(0, min(left, batch.num_rows))
        left -= batch.num_rows
        if left <= 0:
            return
