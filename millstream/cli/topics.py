"""`millstream topics`: what is in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from millstream.cli.console import notes, out
from millstream.cli.options import LogOption, open_log

if TYPE_CHECKING:
    from millstream.log.topic import Topic

app = typer.Typer(help="List and describe topics.", no_args_is_help=True)


@app.command("list")
def list_topics(log: LogOption = None) -> None:
    """List the log's topics with their size."""
    opened = open_log(log)
    names = opened.topic_names()
    if not names:
        notes.print(f"no topics in {opened.path}")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("topic", "kind", "partitions", "rows", "key", "time"):
        right = heading in {"partitions", "rows"}
        table.add_column(heading, justify="right" if right else "left")
    for name in names:
        topic = opened.topic(name)
        config = topic.config
        table.add_row(
            name,
            "table" if config.table else "stream",
            f"{config.partitions}",
            f"{row_count(topic):,}",
            ", ".join(config.key),
            config.time or "",
        )
    out.print(table)


def row_count(topic: Topic) -> int:
    """Return how many offsets of the topic a read-committed reader can see."""
    ends = topic.stable_ends()
    return sum(end - topic.partition(index).first_offset for index, end in enumerate(ends))
