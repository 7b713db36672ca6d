"""`millstream log backup|backups|restore|mirror|promote`: one disk is one copy."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import bytes_text, notes, out, plain_table, print_table, time_text
from millstream.cli.options import LogOption, absolute_place, open_log

if TYPE_CHECKING:
    from millstream.log.backup import BackupReport

Place = Annotated[
    str,
    typer.Argument(
        help="Where backups are: a folder, or a URI such as s3://bucket/path.", metavar="PLACE"
    ),
]
Directory = Annotated[
    Path, typer.Argument(help="The folder of the copy.", metavar="DIRECTORY", file_okay=False)
]


def back_up(
    place: Place,
    log: LogOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read and verify everything, not only what is new.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option(help="Remove all but the newest so many backups.", min=1)
    ] = None,
) -> None:
    """Back the log up while it is used; only what came since the last backup is stored."""
    from millstream.log.backup import back_up

    opened = open_log(log)
    report = back_up(opened, absolute_place(place), full=full, keep=keep)
    out.print(_sentence("stored", report), markup=False, soft_wrap=True)


def list_backups(place: Place) -> None:
    """List the backups in a place."""
    from millstream.log.backup import backups
    from millstream.storage_local import LocalStorage

    found = backups(absolute_place(place), LocalStorage())
    if not found:
        notes.print(f"no backups in {place}", markup=False, soft_wrap=True)
        return
    table = plain_table()
    for heading in ("backup", "taken (UTC)", "topics", "files", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        size = bytes_text(each.bytes_total)
        taken = time_text(each.taken_us)
        table.add_row(f"{each.number}", taken, f"{each.topics}", f"{each.files}", size)
    print_table(table)


def restore(
    place: Place,
    directory: Directory,
    number: Annotated[
        int | None, typer.Option(help="Which backup; by default the newest.", show_default=False)
    ] = None,
) -> None:
    """Make a log of a backup, in a new folder."""
    from millstream.log.backup import restore
    from millstream.storage_local import LocalStorage

    report = restore(absolute_place(place), os.path.abspath(directory), LocalStorage(), number)
    out.print(_sentence("restored", report), markup=False, soft_wrap=True)


def mirror(
    directory: Directory,
    log: LogOption = None,
    interval: Annotated[float, typer.Option(help="Seconds between two rounds.", min=0.01)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="End after one round.")] = False,
) -> None:
    """Keep a second log that follows the first one, until Ctrl-C; it takes readers, no writers."""
    from millstream.log.backup import Mirror
    from millstream.storage_local import LocalStorage

    opened = open_log(log)
    with Mirror(opened, os.path.abspath(directory), LocalStorage()) as follower:
        try:
            copied = follower.step().bytes_copied
            notes.print(
                f"{directory} is what {opened.path} is; copied {bytes_text(copied)}",
                markup=False,
                soft_wrap=True,
            )
            while not once:
                time.sleep(interval)
                follower.step()
        except KeyboardInterrupt:
            notes.print("stopped; the mirror is whole", markup=False)


def promote(directory: Directory) -> None:
    """Let a mirror take writers: it is a log of its own from then on."""
    from millstream.log.backup import promote
    from millstream.storage_local import LocalStorage

    source = promote(os.path.abspath(directory), LocalStorage())
    out.print(
        f"{directory} follows {source} no more and takes writers", markup=False, soft_wrap=True
    )


def _sentence(done: str, report: BackupReport) -> str:
    new = f", {bytes_text(report.bytes_stored)} of it new" if done == "stored" else ""
    return (
        f"{done} backup {report.number}, taken {time_text(report.taken_us)} UTC: "
        f"{report.topics} topics, {bytes_text(report.bytes_total)}{new}"
    )
