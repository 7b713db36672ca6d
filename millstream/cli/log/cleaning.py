"""`millstream log compact|erase`: cleans topics now, whoever else reads and writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import bytes_text, notes, out, plain_table, print_table
from millstream.cli.options import LogOption, open_log
from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa


def compact(
    topic: Annotated[
        str | None, typer.Argument(help="The topic; all of them when left out.", metavar="TOPIC")
    ] = None,
    log: LogOption = None,
) -> None:
    """Remove what retention says, and compact topics whose cleanup.policy says so."""
    done = open_log(log).clean(topic)
    table = plain_table()
    table.add_column("partition", no_wrap=True)
    for heading in ("removed", "compacted", "rows dropped", "bytes before", "bytes after"):
        table.add_column(heading, justify="right", no_wrap=True)
    changed = [each for each in done if each.segments_removed or each.compacted.segments_before]
    for each in changed:
        compacted = each.compacted
        table.add_row(
            f"{each.topic}/{each.partition}",
            f"{each.segments_removed:,}",
            f"{compacted.segments_before:,} → {compacted.segments_after:,}",
            f"{compacted.rows_dropped:,}",
            bytes_text(compacted.bytes_before + each.bytes_removed),
            bytes_text(compacted.bytes_after),
        )
    if changed:
        print_table(table)
    else:
        notes.print("there is nothing to remove or to compact")


def erase(
    topic: Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="VALUE",
            help="A key, may be repeated; COLUMN=VALUE,… where the key has several columns.",
        ),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Only end an erasure that was begun.")
    ] = False,
    log: LogOption = None,
) -> None:
    """Remove all rows of some keys for good, from every file of a topic."""
    if bool(key) == unfinished:
        message = "say which keys are to go with --key, or --unfinished to end what was begun"
        raise OptionError(message)
    opened = open_log(log)
    columns = opened.topic(topic).config.key
    done = opened.erase(topic, _keys(key, list(columns)) if key and columns else None)
    out.print(
        f"{done.rows:,} rows of {done.keys:,} keys are gone; {done.segments:,} segments were "
        "rewritten. Copies such as backups still have them.",
        markup=False,
        soft_wrap=True,
    )


def _keys(texts: list[str], columns: list[str]) -> pa.Table:
    """Return the keys that the command line names, as text."""
    import pyarrow as pa

    if len(columns) == 1:
        return pa.table({columns[0]: texts})
    rows = []
    for text in texts:
        parts = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        if set(parts) != set(columns):
            form = ",".join(f"{column}=VALUE" for column in columns)
            message = f"a key of this topic is {form}; got {text!r}"
            raise OptionError(message)
        rows.append(parts)
    return pa.table({column: [row[column] for row in rows] for column in columns})
