"""`millstream log verify`: whether all that the log holds is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import bytes_text, notes, out
from millstream.cli.options import LogOption, open_log
from millstream.errors import LogError

if TYPE_CHECKING:
    from millstream.log.check.verify import Finding, Verdict


def verify(
    topic: Annotated[
        str | None, typer.Argument(help="The topic; by default all.", metavar="[TOPIC]")
    ] = None,
    log: LogOption = None,
) -> None:
    """Check every byte of the log, or of a topic; ends with exit code 1 where rows are lost."""
    from millstream.log.check.verify import verify

    damaged = []
    rows = size = 0
    for verdict in verify(open_log(log), topic):
        rows += verdict.rows
        size += verdict.bytes
        for line in findings_text(verdict):
            out.print(line, markup=False, soft_wrap=True)
        if verdict.is_damaged:
            damaged.append(verdict.name)
    notes.print(f"checked {rows:,} rows, {bytes_text(size)}", markup=False)
    if damaged:
        message = (
            f"rows are lost in {', '.join(damaged)}; restore the log from a backup, or save what "
            "is whole with `millstream log repair TOPIC`"
        )
        raise LogError(message)
    out.print("all rows are whole")


def findings_text(verdict: Verdict) -> list[str]:
    """Return a line for each finding of a partition."""
    return [f"{verdict.name}: {_text(each)}" for each in verdict.findings]


def _text(finding: Finding) -> str:
    where = f"{finding.path}, byte {finding.position:,}: {finding.reason}"
    if finding.kind == "index":
        return f"the index is of no use and will be made anew ({where})"
    if finding.kind == "tail":
        return f"a dead process left half a frame, which the next appender cuts ({where})"
    until = "on" if finding.until is None else f"to {finding.until - 1:,}"
    return f"the rows from offset {finding.offset:,} {until} cannot be read ({where})"
