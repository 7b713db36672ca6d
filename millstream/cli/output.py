"""Rows on standard output: a table, JSON lines, CSV or an Arrow stream."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from millstream.cli.cells import print_rows
from millstream.cli.console import notes, out
from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

Writer = Callable[[Iterator["pa.RecordBatch"]], int]
"""Writes all batches as they come, and returns how many rows they were."""


def writer_of(format_: str, schema: pa.Schema, title: str, *, follow: bool) -> Writer:
    """Return what writes rows of `schema` in a format.

    Parameters
    ----------
    format_
        `"table"`, `"jsonl"`, `"csv"` or `"arrow"`.
    title
        Of a table.
    follow
        Whether a table is printed for each batch instead of one for all.

    Raises
    ------
    OptionError
        Where a column has no form in the format.
    """
    match format_:
        case "jsonl":
            return _write_jsonl
        case "csv":
            _check_csv(schema)
            return partial(_write_csv, schema)
        case "arrow":
            return partial(_write_arrow, schema)
        case _:
            return partial(_print_tables, title, follow)


def _print_tables(title: str, follow: bool, batches: Iterator[pa.RecordBatch]) -> int:
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


def _write_jsonl(batches: Iterator[pa.RecordBatch]) -> int:
    from millstream.cli.json_values import json_lines

    written = 0
    for batch in batches:
        _write(json_lines(batch))
        written += batch.num_rows
    return written


def _write_csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Write the header, also where there are no rows, and then the rows."""
    _write(_csv_of(schema.empty_table(), include_header=True))
    written = 0
    for batch in batches:
        _write(_csv_of(batch, include_header=False))
        written += batch.num_rows
    return written


def _write_arrow(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    import pyarrow as pa

    written = 0
    with pa.ipc.new_stream(pa.PythonFile(sys.stdout.buffer, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            sys.stdout.buffer.flush()
            written += batch.num_rows
    return written


def _csv_of(rows: pa.Table | pa.RecordBatch, *, include_header: bool) -> bytes:
    import pyarrow.csv

    text = io.BytesIO()
    pyarrow.csv.write_csv(rows, text, pyarrow.csv.WriteOptions(include_header=include_header))
    return text.getvalue()


def _check_csv(schema: pa.Schema) -> None:
    """Raise where a column is of a type that CSV has no form for."""
    import pyarrow as pa

    for field in schema:
        try:
            _csv_of(pa.schema([field]).empty_table(), include_header=True)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            message = (
                f"column {field.name!r} is {field.type}, which has no form in CSV; leave it out "
                "with --columns, or take --format jsonl or arrow"
            )
            raise OptionError(message) from error


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
