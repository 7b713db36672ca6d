"""`millstream log repair`: saves what is whole of a damaged topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import notes, out
from millstream.cli.options import LogOption, absolute_place, open_log

if TYPE_CHECKING:
    from millstream.log.check.repair import Repair


def repair(
    topic: Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")],
    log: LogOption = None,
    partition: Annotated[
        int | None, typer.Option(help="Only this partition.", min=0, show_default=False)
    ] = None,
    backup: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where backups are: what is whole there is taken from the newest.",
            metavar="PLACE",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Make a damaged topic readable again; rows that are damaged and in no backup are lost."""
    from millstream.log.check.repair import repair

    place = None if backup is None else absolute_place(backup)
    done = repair(open_log(log), topic, partition, place=place, dry_run=dry_run)
    for each in done:
        out.print(_text(each, dry_run=dry_run), markup=False, soft_wrap=True)
    if not done:
        notes.print(f"{topic}: nothing is damaged", markup=False)


def _text(each: Repair, *, dry_run: bool) -> str:
    name = each.name
    word = "would be" if dry_run else "was"
    if not each.lost:
        text = f"{name}: {each.path} {word} put right, all its rows are there"
    else:
        ranges = ", ".join(f"{start:,} to {stop - 1:,}" for start, stop in each.lost)
        verb = "would be lost" if dry_run else "are lost"
        text = f"{name}: rows {ranges} {verb}, {each.rows_kept:,} of {each.path} are kept"
    return f"{text}; what was there is in {each.saved_as}" if each.saved_as else text
