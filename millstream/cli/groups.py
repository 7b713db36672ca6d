"""`millstream groups`: who reads what together, how far, and from where next time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import typer
from rich.table import Table

from millstream.cli.console import (
    duration_text,
    notes,
    out,
    plain_table,
    print_table,
    time_text,
)
from millstream.cli.options import LogOption, open_log
from millstream.errors import OptionError, UnknownGroupError, nearest

if TYPE_CHECKING:
    from millstream.log import Log
    from millstream.log.groups.group import Group, GroupDescription
    from millstream.log.groups.reset import OffsetChange

app = typer.Typer(help="List, describe, reset and delete consumer groups.", no_args_is_help=True)

GroupArgument = Annotated[str, typer.Argument(help="The group.", metavar="GROUP")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_PLACE = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+)(/(?P<partition>[0-9]+))?")


@app.command("list")
def list_groups(*, json: JsonOption = False, log: LogOption = None) -> None:
    """List the log's groups, their state and how far they are behind."""
    opened = open_log(log)
    described = [opened.group(name).describe() for name in opened.groups()]
    if json:
        _print_json([_summary(each) for each in described])
        return
    if not described:
        notes.print(f"no groups in {opened.path}", markup=False, soft_wrap=True)
        return
    table = plain_table()
    for heading in ("group", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("members", "partitions", "lag"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in described:
        summary = _summary(each)
        table.add_row(
            summary["name"],
            summary["state"],
            f"{summary['members']}",
            f"{summary['partitions']}",
            f"{summary['lag']:,}",
        )
    print_table(table)


@app.command("describe")
def describe_group(
    group: GroupArgument, *, json: JsonOption = False, log: LogOption = None
) -> None:
    """Describe a group: its members, and the committed offset and lag of each partition."""
    opened = open_log(log)
    described = _existing(opened, group).describe()
    if json:
        _print_json(described)
        return
    count = len(described["members"])
    out.print(
        f"{group}, {described['state']}, {count} member{'s' if count != 1 else ''}, "
        f"generation {described['generation']}\n",
        markup=False,
    )
    if count:
        print_table(_members(described))
        out.print()
    print_table(_partitions(described, opened.clock.now_us()))


@app.command("reset")
def reset_group(
    group: GroupArgument,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="beginning, end, an offset, or a time (2024-01-31T12:00, UTC unless it says)."
        ),
    ] = "",
    shift: Annotated[
        int | None, typer.Option(help="So many rows further than committed; back with a minus.")
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="Only this topic, or partition as TOPIC/NUMBER; may be given again."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    json: JsonOption = False,
    log: LogOption = None,
) -> None:
    """Let a group without living members go on from elsewhere."""
    opened = open_log(log)
    options: dict[str, Any] = {} if shift is None else {"shift": shift}
    if to:
        options.update(_target(to))
    if topic:
        options["partitions"] = _chosen(opened, topic)
        found = opened.group(group)
    else:
        found = _existing(opened, group)
    changes = found.reset(**options, dry_run=dry_run)
    if json:
        _print_json([_change(each) for each in changes])
        return
    table = plain_table()
    table.add_column("topic", no_wrap=True)
    for heading in ("partition", "from", "to", "rows"):
        table.add_column(heading, justify="right", no_wrap=True)
    several = any(each.generation for each in changes)
    for (name, partition), before, after, generation in changes:
        moved = "–" if before is None else f"{after - before:+,}"
        place = _numbered(generation, partition, several)
        table.add_row(name, place, _number(before), f"{after:,}", moved)
    print_table(table)
    if dry_run:
        notes.print("nothing was changed; leave out --dry-run to do it")


@app.command("delete")
def delete_group(group: GroupArgument, log: LogOption = None) -> None:
    """Remove a group without living members, and what it has committed."""
    _existing(open_log(log), group).delete()
    notes.print(f"group {group!r} is deleted", markup=False)


def _existing(log: Log, name: str) -> Group:
    found = log.group(name)
    names = log.groups()
    if name not in names:
        message = f"no group {name!r} in the log {log.path}{nearest(name, names)}"
        raise UnknownGroupError(message)
    return found


def _target(text: str) -> dict[str, object]:
    """Return the option of `Group.reset` that a text stands for."""
    if text in {"beginning", "end"}:
        return {"to": cast("Literal['beginning', 'end']", text)}
    if text.isdecimal():
        return {"to_offset": int(text)}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"--to is beginning, end, an offset or a time like 2024-01-31T12:00; got {text!r}"
        raise OptionError(message) from error
    return {"to_time": moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)}


def _chosen(log: Log, topics: list[str]) -> list[tuple[str, int]]:
    """Return the partitions that `--topic` names."""
    places = []
    for text in topics:
        match = _PLACE.fullmatch(text)
        if match is None:
            message = f"--topic is a topic, or a partition as TOPIC/NUMBER; got {text!r}"
            raise OptionError(message)
        found = log.topic(match["topic"])
        if match["partition"] is None:
            places += [(found.name, index) for index in range(found.partitions)]
        else:
            places.append((found.name, int(match["partition"])))
    return places


def _summary(described: GroupDescription) -> dict[str, Any]:
    partitions = described["partitions"]
    return {
        "name": described["name"],
        "state": described["state"],
        "members": len(described["members"]),
        "partitions": len(partitions),
        "lag": sum(each["lag"] or 0 for each in partitions),
    }


def _change(change: OffsetChange) -> dict[str, Any]:
    (topic, partition), before, after, generation = change
    return {
        "topic": topic,
        "generation": generation,
        "partition": partition,
        "from": before,
        "to": after,
    }


def _members(described: GroupDescription) -> Table:
    table = plain_table()
    table.add_column("member", no_wrap=True)
    table.add_column("process", justify="right", no_wrap=True)
    table.add_column("heard", no_wrap=True)
    table.add_column("partitions", overflow="fold")
    for each in described["members"]:
        heard = f"{duration_text(each['silent_us'])} ago" if each["alive"] else "dead"
        owned = [f"{name}/{index}" for name, index in each["owned"]]
        coming = [
            f"({name}/{index})"
            for name, index in each["target"]
            if (name, index) not in each["owned"]
        ]
        table.add_row(
            each["name"], _number(each["process"], ""), heard, ", ".join(owned + coming) or "–"
        )
    return table


def _partitions(described: GroupDescription, now_us: int) -> Table:
    table = plain_table()
    table.add_column("topic", no_wrap=True)
    for heading in ("partition", "committed", "end", "lag"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("when", "member"):
        table.add_column(heading, no_wrap=True)
    several = any(each["generation"] for each in described["partitions"])
    for each in described["partitions"]:
        when_us = each["committed_us"]
        when = "–"
        if when_us is not None:
            when = f"{time_text(when_us)} ({duration_text(now_us - when_us)} ago)"
        table.add_row(
            each["topic"],
            _numbered(each["generation"], each["partition"], several),
            _number(each["committed"]),
            f"{each['end']:,}",
            _number(each["lag"]),
            when,
            each["member"] or "–",
        )
    return table


def _numbered(generation: int, partition: int, several: bool) -> str:
    """Return a partition's number, with its generation where the topics have several."""
    return f"{generation}:{partition}" if several else f"{partition}"


def _number(value: int | None, separator: str = ",") -> str:
    return "–" if value is None else f"{value:{separator}}"


def _print_json(value: object) -> None:
    out.print(msgspec.json.encode(value).decode(), markup=False, soft_wrap=True)
