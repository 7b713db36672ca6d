"""`millstream log compact`: cleans topics now, whoever else reads and writes them."""

from __future__ import annotations

from typing import Annotated

import typer

from millstream.cli.console import bytes_text, notes, plain_table, print_table
from millstream.cli.options import LogOption, open_log


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
