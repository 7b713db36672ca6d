"""`millstream log stats`: what each partition holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from millstream.cli.console import bytes_text, plain_table, print_table, time_text
from millstream.cli.options import LogOption, open_log

if TYPE_CHECKING:
    from millstream.log.topic import Topic


def stats(
    topic: Annotated[str | None, typer.Argument(help="Only this topic.", metavar="[TOPIC]")] = None,
    log: LogOption = None,
) -> None:
    """Show rows, segments, size and times of each partition, in UTC."""
    opened = open_log(log)
    table = plain_table()
    table.add_column("topic", no_wrap=True)
    for heading in ("partition", "rows", "segments", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("first row", "last row"):
        table.add_column(heading, no_wrap=True)
    for name in opened.topic_names() if topic is None else [topic]:
        found = opened.topic(name)
        described: Any = found.describe()
        older = [
            (older["generation"], each)
            for older in described["older"]
            for each in older["partitions"]
        ]
        present = [(described["generation"], each) for each in described["partitions"]]
        for generation, each in [*older, *present]:
            number = each["partition"]
            first, end = each["first_offset"], each["stable_end"]
            table.add_row(
                escape(name),
                f"{generation}:{number}" if older else f"{number}",
                f"{end - first:,}",
                f"{each['segments']:,}",
                bytes_text(each["bytes"]),
                time_text(_time_us(found, generation, number, first)),
                time_text(_time_us(found, generation, number, max(end - 1, first))),
            )
    print_table(table)


def _time_us(topic: Topic, generation: int, partition: int, offset: int) -> int | None:
    """Return the time of the first committed row from an offset on, `None`: there is none."""
    columns = ["_timestamp"]
    reader = topic.reader(partition, generation=generation, offset=offset, columns=columns)
    batch = reader.read(rows_max=1)
    if batch is None or not batch.column(0)[0].is_valid:
        return None
    return int(batch.column(0)[0].value)
