"""`millstream dlq`: rows that jobs could not compute, and feeding them back after a fix."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from millstream.cli.console import notes, out, plain_table, print_table, rows_text
from millstream.cli.options import LogOption, open_log

if TYPE_CHECKING:
    from millstream.log import Log

app = typer.Typer(
    help="List rows that jobs could not compute, show them, feed them back.", no_args_is_help=True
)

JobArgument = Annotated[str, typer.Argument(help="The job's name.", metavar="JOB")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_letters(*, json: JsonOption = False, log: LogOption = None) -> None:
    """List jobs with dead letters: how many, of which operators, and the commonest error."""
    from millstream.runtime.replay import SUFFIX, dead_letter_topics

    opened = open_log(log)
    topics = dead_letter_topics(opened)
    found = [(name.removesuffix(SUFFIX), _letters(opened, name)) for name in topics]
    if json:
        content = [{"job": job, **_summary(letters)} for job, letters in found]
        out.print(msgspec.json.encode(content).decode(), markup=False, soft_wrap=True)
        return
    if not found:
        notes.print(f"no dead letters in {opened.path}", markup=False, soft_wrap=True)
        return
    table = plain_table()
    for heading in ("job", "rows", "operators", "commonest error"):
        table.add_column(heading)
    for job, letters in found:
        summary = _summary(letters)
        table.add_row(
            job, f"{summary['rows']:,}", ", ".join(summary["operators"]), summary["error"] or ""
        )
    print_table(table)


@app.command("show")
def show(
    job: JobArgument,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest last.")] = 20,
    json: JsonOption = False,
    log: LogOption = None,
) -> None:
    """Show a job's dead letters: the row, where it came from, and the error."""
    from millstream.runtime.replay import checked_topic

    opened = open_log(log)
    letters = _letters(opened, checked_topic(opened, job))[-limit:]
    for each in letters:
        if json:
            out.print(msgspec.json.encode(each).decode(), markup=False, soft_wrap=True)
            continue
        place = "a row made of others"
        if each["topic"] is not None:
            place = f"{each['topic']}/{each['partition']}, offset {each['offset']}"
        out.print(f"{place}: operator {each['operator']}", markup=False, soft_wrap=True)
        out.print(f"    {each['error']}", markup=False, soft_wrap=True)
        out.print(f"    {each['row']}", markup=False, soft_wrap=True)


@app.command("replay")
def replay_letters(job: JobArgument, log: LogOption = None) -> None:
    """Append the rows again, at the ends of their topics, each once; all readers see them again."""
    from millstream.runtime.replay import replay

    done = replay(open_log(log), job)
    for topic, count in sorted(done.rows.items()):
        notes.print(f"appended {rows_text(count)} to {topic}", markup=False, soft_wrap=True)
    for reason, count in sorted(done.left.items()):
        notes.print(f"left {rows_text(count)}: {reason}", markup=False, soft_wrap=True)
    if not done.rows and not done.left:
        notes.print(f"nothing to replay of {job}", markup=False, soft_wrap=True)


def _letters(log: Log, topic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = log.topic(topic).to_arrow().to_pylist()
    return found


def _summary(letters: list[dict[str, Any]]) -> dict[str, Any]:
    errors = Counter(each["error"] for each in letters).most_common(1)
    operators = list(dict.fromkeys(each["operator"] for each in letters))
    return {
        "rows": len(letters),
        "operators": operators,
        "error": errors[0][0] if errors else None,
    }
