"""`millstream topics`: what is in the log, and the settings of its topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from millstream.cli.columns import parse_column
from millstream.cli.console import (
    bytes_text,
    duration_text,
    notes,
    out,
    plain_table,
    print_table,
    time_text,
)
from millstream.cli.options import LogOption, config_of, open_log
from millstream.cli.topic_changes import create_topic, delete_topic
from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.log.topic import Topic

app = typer.Typer(
    help="Create, list, describe, alter, repartition and delete topics.", no_args_is_help=True
)
app.command("create")(create_topic)
app.command("delete")(delete_topic)


@app.command("list")
def list_topics(log: LogOption = None) -> None:
    """List the log's topics with their size."""
    opened = open_log(log)
    names = opened.topic_names()
    if not names:
        notes.print(f"no topics in {opened.path}", markup=False, soft_wrap=True)
        return
    table = plain_table()
    table.add_column("topic", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for heading in ("parts", "rows"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("key", overflow="fold")
    table.add_column("time", no_wrap=True)
    for name in names:
        topic = opened.topic(name)
        config = topic.config
        table.add_row(
            name,
            "table" if config.table else "stream",
            f"{config.partitions}",
            f"{row_count(topic):,}",
            escape(", ".join(config.key)),
            escape(config.time or ""),
        )
    print_table(table)


@app.command("describe")
def describe_topic(
    topic: Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")],
    log: LogOption = None,
) -> None:
    """Describe a topic: its columns, its options, and the state of each partition."""
    opened = open_log(log)
    found = opened.topic(topic)
    description: dict[str, Any] = found.describe()
    partitions: list[dict[str, Any]] = description["partitions"]
    count = f"{len(partitions)} partition{'s' if len(partitions) != 1 else ''}"
    out.print(f"[bold]{topic}[/], a {description['kind']} of {count}\n")
    out.print(_options(description), markup=False, soft_wrap=True)
    out.print()
    print_table(_settings(description))
    out.print()
    print_table(_columns(found.schema, description))
    out.print()
    print_table(_partitions(partitions))
    for older in description["older"]:
        out.print(f"\nBefore, in generation {older['generation']}:\n", markup=False)
        print_table(_partitions(older["partitions"]))
        partitions = [*older["partitions"], *partitions]
    for line in _open_transactions(partitions, opened.clock.now_us()):
        out.print(f"\n{line}", markup=False)


@app.command("alter")
def alter_topic(
    topic: Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")],
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="NAME=VALUE", help="A setting; may be repeated."),
    ] = None,
    delete_config: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A setting that takes its default again."),
    ] = None,
    add_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME TYPE'", help="A further column, null in the rows there are; repeatable."
        ),
    ] = None,
    log: LogOption = None,
) -> None:
    """Change settings of a topic, or give it columns; who has it open follows."""
    changes: dict[str, str | None] = {**config_of(config or [])}
    changes.update(dict.fromkeys(delete_config or []))
    columns = [parse_column(each) for each in add_column or []]
    if not changes and not columns:
        message = (
            "nothing to change; use --config NAME=VALUE, --delete-config NAME or "
            "--add-column 'NAME TYPE'"
        )
        raise OptionError(message)
    altered = open_log(log).alter_topic(topic, config=changes, add_columns=columns)
    for each in columns:
        out.print(f"{each.name}: {each.type}", markup=False, highlight=False)
    for name, value in altered.config.config.items():
        out.print(f"{name} = {value}", markup=False, highlight=False)


@app.command("repartition")
def repartition_topic(
    topic: Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")],
    partitions: Annotated[int, typer.Argument(help="How many.", metavar="N")],
    log: LogOption = None,
) -> None:
    """Give a topic another number of partitions; the rows of each key stay in their order."""
    opened = open_log(log)
    before = opened.topic(topic).partitions
    altered = opened.repartition(topic, partitions)
    out.print(
        f"{topic}: {before} → {altered.partitions} partitions, generation "
        f"{altered.config.generation}",
        markup=False,
        highlight=False,
    )


def row_count(topic: Topic) -> int:
    """Return how many offsets of the topic a read-committed reader can see."""
    return sum(
        topic.stable_end(index, generation) - topic.partition(index, generation).first_offset
        for generation, index in topic.places()
    )


def _options(description: dict[str, Any]) -> str:
    lines = {
        "key": ", ".join(description["key"]) or "–",
        "time": description["time"] or "–",
        "durability": description["durability"],
        "directory": description["directory"],
    }
    return "\n".join(f"{name:<13}{text}" for name, text in lines.items())


def _settings(description: dict[str, Any]) -> Table:
    table = plain_table()
    for heading in ("setting", "value", ""):
        table.add_column(heading, no_wrap=True)
    for name, value in description["settings"].items():
        origin = "set" if name in description["config"] else "default"
        table.add_row(name, f"{value}", origin)
    return table


def _columns(schema: pa.Schema, description: dict[str, Any]) -> Table:
    table = plain_table()
    for heading in ("column", "type", "null", "role"):
        table.add_column(heading, overflow="fold")
    for field in schema:
        role = "key" if field.name in description["key"] else ""
        if field.name == description["time"]:
            role = "time"
        null = "yes" if field.nullable else "no"
        table.add_row(escape(field.name), escape(str(field.type)), null, role)
    return table


def _partitions(partitions: list[dict[str, Any]]) -> Table:
    table = plain_table()
    for heading in ("partition", "first offset", "stable end", "durable end", "segments", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in partitions:
        table.add_row(
            f"{each['partition']}",
            f"{each['first_offset']:,}",
            f"{each['stable_end']:,}",
            f"{each['durable_end']:,}",
            f"{each['segments']:,}",
            bytes_text(each["bytes"]),
        )
    return table


def _open_transactions(partitions: list[dict[str, Any]], now_us: int) -> list[str]:
    """Return a sentence for each partition in which a transaction holds readers back."""
    sentences = []
    for each in partitions:
        holder = each["open_transaction"]
        if holder is not None:
            since_us: int = holder["since_us"]
            sentences.append(
                f"Readers of partition {each['partition']} stop at offset "
                f"{each['stable_end']:,}: {holder['owner']!r} (epoch {holder['epoch']}) has not "
                f"decided transaction {holder['number']}, open since {time_text(since_us)} UTC, "
                f"for {duration_text(now_us - since_us)}."
            )
    return sentences
