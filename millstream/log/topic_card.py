"""A topic as a notebook shows it: what it is, its columns, and its first rows."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.log.topic import Topic

ROWS_SHOWN = 5
CELL_CHARACTERS_MAX = 40


def topic_html(topic: Topic) -> str:
    """Return a few lines of HTML; reads the first rows only."""
    config = topic.config
    ends = topic.stable_ends()
    rows = sum(end - topic.partition(index).first_offset for index, end in enumerate(ends))
    kind = "table" if config.table else "stream"
    facts = [f"{config.partitions} partition{'s' if config.partitions != 1 else ''}"]
    facts.append(f"{rows:,} offsets")
    facts += [f"key {', '.join(config.key)}"] if config.key else []
    facts += [f"time {config.time}"] if config.time else []
    head = "".join(
        f"<th>{escape(field.name)}<br><small>{escape(str(field.type))}</small></th>"
        for field in topic.schema
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in _first_rows(topic))
    return (
        f"<b>{escape(topic.name)}</b>, a {kind}: {escape('; '.join(facts))}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _first_rows(topic: Topic) -> list[list[object]]:
    for index in range(topic.partitions):
        reader = topic.reader(index, offset=topic.partition(index).first_offset)
        batch = reader.read(rows_max=ROWS_SHOWN)
        if batch is not None:
            return [list(row.values()) for row in batch.to_pylist()]
    return []


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if len(text) > CELL_CHARACTERS_MAX:
        text = text[:CELL_CHARACTERS_MAX] + "…"
    return f"<td>{escape(text)}</td>"
