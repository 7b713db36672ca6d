"""`millstream topics create|delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from millstream.cli.columns import EXAMPLES, parse_column, schema_of_file
from millstream.cli.console import notes
from millstream.cli.options import LogOption, config_of, names_of, open_log
from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

Name = Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="'NAME TYPE'", help=f"A column; may be repeated. Types: {EXAMPLES}."
    ),
]


def create_topic(
    topic: Name,
    column: Columns = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Take the columns of this Parquet or Arrow IPC file.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    opaque: Annotated[
        bool, typer.Option("--opaque", help="Two columns of bytes: key and value.")
    ] = False,
    partitions: Annotated[int, typer.Option(help="How many partitions.")] = 1,
    key: Annotated[str, typer.Option(help="Key columns, separated by commas.")] = "",
    time: Annotated[str | None, typer.Option(help="The column with the event time.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="The latest row of a key replaces those before.")
    ] = False,
    durability: Annotated[
        str, typer.Option(help="fsync: readers see what is on stable storage; os: what is written.")
    ] = "fsync",
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="NAME=VALUE", help="A setting; may be repeated."),
    ] = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Leave a topic of that name as it is.")
    ] = False,
    log: LogOption = None,
) -> None:
    """Create a topic."""
    columns = _columns(column, schema, opaque=opaque)
    chosen: Literal["fsync", "os"] = "os" if durability == "os" else "fsync"
    if durability != chosen:
        message = f"--durability is fsync or os; got {durability!r}"
        raise OptionError(message)
    open_log(log, create=True).create_topic(
        topic,
        columns,
        partitions=partitions,
        key=names_of(key or ("key" if opaque else "")),
        time=time,
        table=table,
        durability=chosen,
        config=config_of(config or []),
        if_not_exists=if_not_exists,
    )
    notes.print(f"topic {topic!r} is there", markup=False)


def _columns(column: list[str] | None, file: Path | None, *, opaque: bool) -> pa.Schema:
    """Return the columns that are asked for in one of three ways."""
    import pyarrow as pa

    if sum([bool(column), file is not None, opaque]) != 1:
        message = "say which columns: --column 'NAME TYPE' for each, --schema FILE, or --opaque"
        raise OptionError(message)
    if opaque:
        return pa.schema([("key", pa.binary()), ("value", pa.binary())])
    if file is not None:
        return schema_of_file(file)
    return pa.schema([parse_column(each) for each in column or []])


def delete_topic(
    topic: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    log: LogOption = None,
) -> None:
    """Delete a topic and all its rows, for good."""
    opened = open_log(log)
    found = opened.topic(topic)
    rows = sum(
        end - found.partition(index).first_offset for index, end in enumerate(found.stable_ends())
    )
    if not yes and not typer.confirm(f"delete {topic!r} with {rows:,} rows for good?", err=True):
        message = f"{topic!r} was not deleted; answer y, or use --yes"
        raise OptionError(message)
    opened.delete_topic(topic)
    notes.print(f"topic {topic!r} with {rows:,} rows deleted", markup=False)
