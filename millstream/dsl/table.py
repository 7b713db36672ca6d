"""Tables: a topic read as the latest row of each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.dsl.location import user_location
from millstream.dsl.topics import resolved_log, topic_config
from millstream.errors import PlanError
from millstream.plan.columns import require_column
from millstream.plan.nodes import TableSource

if TYPE_CHECKING:
    from millstream.log import Log


@dataclass(frozen=True, slots=True)
class Table:
    """The latest row of each key of a topic; joined to streams by any of its columns.

    Made by `ms.table`. Every method returns a new table.

    Parameters
    ----------
    node
        The plan's node.
    log
        The log that holds the topic.
    """

    node: TableSource
    log: Log

    @property
    def schema(self) -> pa.Schema:
        """The columns, with their types."""
        return self.node.schema

    @property
    def keys(self) -> tuple[str, ...]:
        """The key columns."""
        return self.node.keys

    def select(self, *names: str) -> Table:
        """Keep only the columns `names`; the key columns stay in any case."""
        location = user_location()
        for name in names:
            require_column(self.schema, name, location)
        kept = {*names, *self.keys}
        columns = tuple(each for each in self.node.columns if each[0] in kept)
        return Table(replace(self.node, columns=columns), self.log)

    def drop(self, *names: str) -> Table:
        """Leave out the columns `names`, which may not be key columns."""
        location = user_location()
        for name in names:
            require_column(self.schema, name, location)
            if name in self.keys:
                message = f"{location}: {name!r} is a key of table {self.node.topic!r} and stays"
                raise PlanError(message)
        columns = tuple(each for each in self.node.columns if each[0] not in names)
        return Table(replace(self.node, columns=columns), self.log)

    def rename(self, names: Mapping[str, str]) -> Table:
        """Give columns other names, `{"old": "new"}`, e.g. where a stream has the same ones."""
        location = user_location()
        for name in names:
            require_column(self.schema, name, location)
        columns = tuple((names.get(name, name), column) for name, column in self.node.columns)
        return Table(replace(self.node, columns=columns, location=location), self.log)

    def named(self, name: str) -> Table:
        """Give the source a name, by which its position is kept in checkpoints."""
        return Table(replace(self.node, name=name), self.log)

    def __repr__(self) -> str:
        columns = ", ".join(f"{each.name}: {each.type}" for each in self.schema)
        return f"table {self.node.topic} by {', '.join(self.keys)} ({columns})"


def table(topic: str, key: str | Sequence[str] | None = None, log: Log | None = None) -> Table:
    """Return a topic as a table: the latest row of each key, without deleted ones.

    Parameters
    ----------
    topic
        A topic that was created with `table=True` and key columns.
    key
        The topic's key columns, for a reader to see; they are checked, not chosen.
    log
        Where the topic is; by default `MILLSTREAM_LOG` or `./data`.

    Raises
    ------
    UnknownTopicError
        When there is no such topic.
    PlanError
        When the topic is not a table, or its key is another one.
    """
    location = user_location()
    log = resolved_log(log)
    config = topic_config(log, topic, location)
    if not config.table or not config.key:
        message = (
            f"{location}: topic {topic!r} is not a table; create it with table=True and "
            'key=("…",), or read it as events with ms.stream'
        )
        raise PlanError(message)
    asked = (key,) if isinstance(key, str) else tuple(key or config.key)
    if set(asked) != set(config.key):
        message = (
            f"{location}: the key of table {topic!r} is {', '.join(config.key)}; "
            f"got key={key!r}. A table may be joined by any columns, but has one row for each key"
        )
        raise PlanError(message)
    columns = tuple((name, name) for name in config.schema.names)
    node = TableSource(
        topic, config.schema, tuple(config.key), config.time, columns, location=location
    )
    return Table(node, log)
