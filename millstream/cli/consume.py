"""`millstream consume`: the rows of a topic, for a person or for a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from millstream.cli.cells import print_rows
from millstream.cli.console import notes, out
from millstream.cli.options import LogOption, names_of, open_log
from millstream.clock import SystemClock
from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.log.topic import Topic

OutputFormat = Literal["table", "jsonl", "csv"]
TABLE_ROWS_DEFAULT = 20
POLL_INTERVAL_US = 100_000


def consume(
    topic: Annotated[str, typer.Argument(help="The topic to read.", metavar="TOPIC")],
    *,
    from_: Annotated[
        str, typer.Option("--from", help="beginning, end, or an offset in each partition.")
    ] = "beginning",
    max_: Annotated[
        int | None,
        typer.Option("--max", min=1, help="Stop after so many rows; a table shows 20 unless told."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for new rows, until Ctrl-C.")
    ] = False,
    format_: Annotated[OutputFormat, typer.Option("--format")] = "table",
    columns: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    log: LogOption = None,
) -> None:
    """Print the committed rows of a topic, partition by partition."""
    source = open_log(log).topic(topic)
    chosen = names_of(columns) or list(source.schema.names)
    default = TABLE_ROWS_DEFAULT if format_ == "table" and max_ is None and not follow else None
    batches = _limited(_read(source, from_, chosen, follow=follow), max_ or default)
    # Whoever follows a topic ends that with Ctrl-C: it is no failure.
    with suppress(KeyboardInterrupt) if follow else nullcontext():
        match format_:
            case "table":
                shown = _print_tables(batches, source.name, follow=follow)
                if default is not None and shown == default:
                    notes.print(f"the first {shown:,} rows; more with --max")
            case "jsonl":
                _write_jsonl(batches)
            case "csv":
                _write_csv(batches, source, chosen)


def _read(
    source: Topic, start: str, columns: list[str], *, follow: bool
) -> Iterator[pa.RecordBatch]:
    """Yield what is committed, partition by partition; then, with `follow`, what is added."""
    ends = source.stable_ends()
    readers = [
        source.reader(index, offset=_offset(start, source, index, ends[index]), columns=columns)
        for index in range(source.partitions)
    ]
    clock = SystemClock()
    while True:
        idle = True
        for reader in readers:
            while (batch := reader.read()) is not None:
                idle = False
                yield batch
        if not follow:
            return
        if idle:
            clock.sleep_us(POLL_INTERVAL_US)


def _offset(start: str, source: Topic, index: int, end: int) -> int:
    first = source.partition(index).first_offset
    match start:
        case "beginning":
            return first
        case "end":
            return end
        case _ if start.isdecimal():
            return min(max(int(start), first), end)
        case _:
            message = f"--from must be beginning, end or an offset; got {start!r}"
            raise OptionError(message)


def _limited(batches: Iterator[pa.RecordBatch], rows_max: int | None) -> Iterator[pa.RecordBatch]:
    left = sys.maxsize if rows_max is None else rows_max
    for batch in batches:
        yield batch.slice(0, min(left, batch.num_rows))
        left -= batch.num_rows
        if left <= 0:
            return


def _print_tables(batches: Iterator[pa.RecordBatch], title: str, *, follow: bool) -> int:
    """Print the rows, as one table or, following, one for each batch; return how many."""
    import pyarrow as pa

    collected: Iterable[pa.Table] = (pa.table(batch) for batch in batches)
    if not follow:
        tables = list(collected)
        collected = [pa.concat_tables(tables)] if tables else []
    shown = 0
    for rows in collected:
        print_rows(out, rows, title if shown == 0 else None)
        shown += rows.num_rows
    if shown == 0:
        notes.print(f"no rows in {title!r}")
    return shown


def _write_jsonl(batches: Iterator[pa.RecordBatch]) -> None:
    for batch in batches:
        lines = (msgspec.json.encode(row) for row in batch.to_pylist())
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()


def _write_csv(batches: Iterator[pa.RecordBatch], source: Topic, columns: list[str]) -> None:
    """Write the header, also where there are no rows, and then the rows."""
    import pyarrow as pa
    import pyarrow.csv

    schema = pa.schema([source.schema.field(name) for name in columns])
    header = pa.RecordBatch.from_pylist([], schema)
    for index, batch in enumerate(_with_first(header, batches)):
        text = io.BytesIO()
        pyarrow.csv.write_csv(batch, text, pyarrow.csv.WriteOptions(include_header=index == 0))
        sys.stdout.buffer.write(text.getvalue())
        sys.stdout.buffer.flush()


def _with_first(
    first: pa.RecordBatch, others: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others
