"""`millstream consume`: the rows of a topic, for a person or for a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich import box
from rich.table import Table

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
    topic: Annotated[str, typer.Argument(help="The topic to read.")],
    *,
    from_: Annotated[
        str, typer.Option("--from", help="beginning, end, or an offset in each partition.")
    ] = "beginning",
    max_: Annotated[
        int | None,
        typer.Option("--max", min=1, help="Stop after so many rows; a table shows 20 unless told."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for new rows.")] = False,
    format_: Annotated[OutputFormat, typer.Option("--format")] = "table",
    columns: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    log: LogOption = None,
) -> None:
    """Print the committed rows of a topic, partition by partition."""
    source = open_log(log).topic(topic)
    chosen = names_of(columns) or list(source.schema.names)
    if format_ == "table" and max_ is None and not follow:
        max_ = TABLE_ROWS_DEFAULT
    batches = _limited(_read(source, from_, chosen, follow=follow), max_)
    match format_:
        case "table":
            shown = _print_tables(batches, source.name, follow=follow)
            if max_ is not None and shown == max_:
                notes.print(f"{shown:,} rows shown; more with --max")
        case "jsonl":
            _write_jsonl(batches)
        case "csv":
            _write_csv(batches)


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
                if batch.num_rows:
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


def rich_table(schema: pa.Schema, title: str | None = None) -> Table:
    """Return an empty table with a column per field, numbers to the right."""
    import pyarrow as pa

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for field in schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if number else "left", overflow="fold")
    return table


def cell_text(value: Any) -> str:
    """Return a value as a table shows it; null is an empty cell.

    Examples
    --------
    >>> cell_text(1 / 3)
    '0.333333'
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).removesuffix("+00:00")


def _print_tables(batches: Iterator[pa.RecordBatch], title: str, *, follow: bool) -> int:
    """Print the rows, as one table or, following, one for each batch; return how many."""
    import pyarrow as pa

    collected: Iterable[pa.Table] = (pa.table(batch) for batch in batches)
    if not follow:
        tables = list(collected)
        collected = [pa.concat_tables(tables)] if tables else []
    shown = 0
    for rows in collected:
        table = rich_table(rows.schema, title if shown == 0 else None)
        for row in rows.to_pylist():
            table.add_row(*(cell_text(value) for value in row.values()))
        out.print(table)
        shown += rows.num_rows
    if shown == 0:
        notes.print(f"no rows in {title!r}")
    return shown


def _write_jsonl(batches: Iterator[pa.RecordBatch]) -> None:
    for batch in batches:
        lines = (msgspec.json.encode(row) for row in batch.to_pylist())
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()


def _write_csv(batches: Iterator[pa.RecordBatch]) -> None:
    import pyarrow.csv

    header = True
    for batch in batches:
        text = io.BytesIO()
        options = pyarrow.csv.WriteOptions(include_header=header)
        pyarrow.csv.write_csv(batch, text, options)
        sys.stdout.buffer.write(text.getvalue())
        sys.stdout.buffer.flush()
        header = False
