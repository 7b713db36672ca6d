"""Where a stream or table begins: the log, and the topic in it, found at the user's line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from millstream.dsl.run_context import current_overrides
from millstream.errors import PlanError, SchemaMismatchError, UnknownTopicError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.log import Log
    from millstream.log.topic_config import TopicConfig


def resolved_log(log: Log | None) -> Log:
    """Return the log that is meant: the given one, the command line's, or the default."""
    if log is not None:
        return log
    overridden = current_overrides().log
    if overridden is not None:
        return overridden
    from millstream.log import Log as LogOfDirectory

    return LogOfDirectory.default()


def copy_hint() -> str:
    """Return the tail of a message on a log that is not there, for a job that Ray started."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return ""
    return (
        "; Ray runs a submitted job in a copy of its working directory, so give the log's whole "
        "path"
    )


def topic_config(log: Log, name: str, location: str) -> TopicConfig:
    """Return the configuration of topic `name`.

    Raises
    ------
    UnknownTopicError
        When there is none; lists the nearest names and the log's directory.
    """
    names = log.topic_names()
    if name not in names:
        message = f"{location}: no topic {name!r} in the log {log.path!r}{nearest(name, names)}"
        if not names and not log.storage.exists(log.path):
            message = (
                f"{location}: no topic {name!r}: the log's directory {log.path!r} does not exist; "
                f"name another one with --log, MILLSTREAM_LOG or log={copy_hint()}"
            )
        raise UnknownTopicError(message)
    return log.topic(name).config


def same_log(logs: list[Log], location: str) -> Log:
    """Return the one log of several streams.

    Raises
    ------
    PlanError
        When there are two.
    """
    paths = {each.path for each in logs}
    if len(paths) > 1:
        listed = " and ".join(repr(each) for each in sorted(paths))
        message = f"{location}: one job reads and writes one log; these streams are of {listed}"
        raise PlanError(message)
    return logs[0]


def check_sink(log: Log, topic: str, schema: pa.Schema, location: str) -> None:
    """Check that rows of `schema` can go to `topic`, if it is there already.

    Raises
    ------
    SchemaMismatchError
        When its columns are others; names them.
    """
    if topic not in log.topic_names():
        return
    existing = log.topic(topic).config.schema
    differences = [
        f"{name!r} is {_type(schema, name)} here and {_type(existing, name)} there"
        for name in dict.fromkeys([*schema.names, *existing.names])
        if _type(schema, name) != _type(existing, name)
    ]
    if differences:
        message = (
            f"{location}: topic {topic!r} exists with other columns: {', '.join(differences)}; "
            "choose another topic, or change the rows with select, rename or cast"
        )
        raise SchemaMismatchError(message)


def check_table_sink(log: Log, topic: str, keys: tuple[str, ...], location: str) -> tuple[str, ...]:
    """Return the key of a table that rows told apart by `keys` go to, in the topic's order.

    Raises
    ------
    PlanError
        When there is a topic that is no table, or one with another key.
    """
    if topic not in log.topic_names():
        return keys
    config = log.topic(topic).config
    if not config.table:
        message = (
            f"{location}: topic {topic!r} exists and is no table, so rows cannot replace others "
            'there; choose another topic, or write each change with mode="changelog"'
        )
        raise PlanError(message)
    if set(config.key) != set(keys):
        message = (
            f"{location}: the key of table {topic!r} is {', '.join(config.key)}, and these rows "
            f"are told apart by {', '.join(keys)}; choose another topic, or key the rows so"
        )
        raise PlanError(message)
    return tuple(config.key)


def _type(schema: pa.Schema, name: str) -> str:
    index = schema.get_field_index(name)
    return "missing" if index < 0 else str(schema.field(index).type)
