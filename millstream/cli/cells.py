"""Rows as a person reads them: a table whose cells are as short as they can be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millstream.cli.console import plain_table, table_width

if TYPE_CHECKING:
    import pyarrow as pa


def print_rows(console: Console, rows: pa.Table, title: str | None = None) -> None:
    """Print the rows as a table or, where the console is too narrow, one below the other."""
    columns = [column_texts(rows.column(index).to_pylist()) for index in range(rows.num_columns)]
    table = _table(rows.schema, columns, title)
    if table_width(table).maximum <= console.width:
        console.print(table)
        return
    if title is not None:
        console.print(f"[bold]{escape(title)}[/]")
    for cells in zip(*columns, strict=True):
        console.rule(style="dim")
        one = Table.grid(padding=(0, 2, 0, 0))
        for name, cell in zip(rows.schema.names, cells, strict=True):
            one.add_row(f"[dim]{escape(name)}[/]", escape(cell))
        console.print(one)


def _table(schema: pa.Schema, columns: list[list[str]], title: str | None) -> Table:
    import pyarrow.types as pat

    table = plain_table(None if title is None else escape(title))
    for field in schema:
        number = pat.is_integer(field.type) or pat.is_floating(field.type)
        table.add_column(escape(field.name), justify="right" if number else "left", overflow="fold")
    for cells in zip(*columns, strict=True):
        table.add_row(*(escape(cell) for cell in cells))
    return table


def column_texts(values: list[Any]) -> list[str]:
    """Return a column's values as text; null is an empty cell.

    All times of a column are written alike, to the minute where that loses nothing.

    Examples
    --------
    >>> column_texts([1 / 3, None, 2.0])
    ['0.333333', '', '2']
    >>> column_texts([datetime(2013, 1, 1, 10, 5)])
    ['2013-01-01 10:05']
    """
    text = _text_of(values)
    return ["" if value is None else text(value) for value in values]


def _text_of(values: list[Any]) -> Callable[[Any], str]:
    times = [value for value in values if isinstance(value, datetime | time)]
    if not times:
        return _plain_text
    minutes = not any(
        value.second or value.microsecond or getattr(value, "nanosecond", 0) for value in times
    )

    def time_text(value: Any) -> str:
        precision = "minutes" if minutes else "auto"
        if isinstance(value, datetime):
            return value.isoformat(" ", precision).removesuffix("+00:00")
        return value.isoformat(precision) if isinstance(value, time) else str(value)

    return time_text


def _plain_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
