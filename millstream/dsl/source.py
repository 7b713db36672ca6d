"""Where a stream begins: a topic read as events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from millstream.dsl.location import user_location
from millstream.dsl.stream import Stream
from millstream.dsl.topics import resolved_log, topic_config
from millstream.dsl.windows import duration_option
from millstream.plan.nodes import StreamSource

if TYPE_CHECKING:
    from millstream.log import Log


def stream(
    topic: str,
    time: str | None = None,
    lateness: str | timedelta = "0s",
    log: Log | None = None,
    idle_timeout: str | timedelta | None = None,
) -> Stream:
    """Return a topic as a stream of events.

    Parameters
    ----------
    topic
        The topic's name.
    time
        The column with the event time; by default the topic's own time column.
    lateness
        How far behind the newest event one may be and still count as in time, e.g. `"24h"`.
    log
        Where the topic is; by default `MILLSTREAM_LOG` or `./data`.
    idle_timeout
        After how long without data a partition stops holding windows open; by default never.

    Raises
    ------
    UnknownTopicError
        When there is no such topic; lists the nearest names.
    UnknownColumnError, ExpressionTypeError
        When the time column is not there or no timestamp.
    """
    location = user_location()
    log = resolved_log(log)
    config = topic_config(log, topic, location)
    node = StreamSource(
        topic,
        config.schema,
        tuple(config.key),
        config.partitions,
        config.time if time is None else time,
        duration_option("lateness", lateness, location),
        None if idle_timeout is None else duration_option("idle_timeout", idle_timeout, location),
        location=location,
    )
    return Stream(node, log)
