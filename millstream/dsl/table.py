"""Tables: the latest row of each key, of a topic or of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from millstream.dsl.expressions import Expression
from millstream.dsl.location import user_location
from millstream.dsl.selection import named_outputs
from millstream.dsl.stream import Stream
from millstream.dsl.topics import resolved_log, topic_config
from millstream.errors import PlanError
from millstream.plan.columns import Outputs, identity_outputs, require_column
from millstream.plan.nodes import Project, TableSource

if TYPE_CHECKING:
    from millstream.log import Log


@dataclass(frozen=True, slots=True)
class Table(Stream):
    """The latest row of each key of a topic, or of a stream.

    Made by `ms.table` and `stream.to_table`. One of a topic can be joined to streams by any of its
    columns. It has the verbs of a stream, too: what they return are the table's changes, from
    which e.g. aggregates are kept up to date.
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """The key columns."""
        return self.node.keys

    def select(self, /, *columns: str | Expression, **computed: object) -> Table:
        """Keep only these columns, and compute others; the key columns stay in any case."""
        location = user_location()
        outputs = dict(named_outputs(self.schema, columns, computed, location))
        present = dict(identity_outputs(self.schema))
        for name in self.keys:
            if outputs.get(name, present[name]) != present[name]:
                message = f"{location}: {name!r} is a key of {self._title} and stays as it is"
                raise PlanError(message)
        node = self.node
        if isinstance(node, TableSource) and outputs.items() <= present.items():
            return self._of_columns({*outputs, *self.keys})
        kept = {name: present[name] for name in self.keys if name not in outputs}
        return self._projected(tuple((kept | outputs).items()), location)

    def drop(self, *names: str) -> Table:
        """Leave out the columns `names`, which may not be key columns."""
        location = user_location()
        for name in names:
            require_column(self.schema, name, location)
            if name in self.keys:
                message = f"{location}: {name!r} is a key of {self._title} and stays"
                raise PlanError(message)
        if isinstance(self.node, TableSource):
            return self._of_columns({*self.schema.names} - {*names})
        kept = tuple(each for each in identity_outputs(self.schema) if each[0] not in names)
        return self._projected(kept, location)

    def rename(self, names: Mapping[str, str]) -> Table:
        """Give columns other names, `{"old": "new"}`, e.g. where a stream has the same ones."""
        node, location = self.node, user_location()
        for name in names:
            require_column(self.schema, name, location)
        if isinstance(node, TableSource):
            columns = tuple((names.get(name, name), column) for name, column in node.columns)
            return Table(replace(node, columns=columns, location=location), self.log)
        outputs = ((names.get(name, name), each) for name, each in identity_outputs(self.schema))
        return self._projected(tuple(outputs), location)

    def __repr__(self) -> str:
        columns = ", ".join(f"{each.name}: {each.type}" for each in self.schema)
        topic = f" {self.node.topic}" if isinstance(self.node, TableSource) else ""
        return f"table{topic} by {', '.join(self.keys)} ({columns})"

    @property
    def _title(self) -> str:
        return f"table {self.node.topic!r}" if isinstance(self.node, TableSource) else "the table"

    def _of_columns(self, kept: set[str]) -> Table:
        assert isinstance(self.node, TableSource)
        columns = tuple(each for each in self.node.columns if each[0] in kept)
        return Table(replace(self.node, columns=columns), self.log)

    def _projected(self, outputs: Outputs, location: str) -> Table:
        return Table(Project(self.node, outputs, location=location), self.log)


def table_source(table: object, location: str) -> TableSource:
    """Return the topic that `table` is, as a stream can be joined with.

    Raises
    ------
    PlanError
        When it is no table, or one that the job makes itself.
    """
    if not isinstance(table, Table):
        message = f"{location}: join takes a table, ms.table(…); got {type(table).__name__}"
        raise PlanError(message)
    if not isinstance(table.node, TableSource):
        message = (
            f"{location}: join takes a table that is a topic; this one is made from a stream: "
            'write it with .to("…", mode="upsert"), and join ms.table("…")'
        )
        raise PlanError(message)
    return table.node


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
        topic,
        config.schema,
        tuple(config.key),
        config.time,
        columns,
        config.partitions,
        location=location,
    )
    return Table(node, log)
