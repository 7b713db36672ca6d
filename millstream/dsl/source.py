"""Where a stream begins: a topic read as events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from millstream.dsl.location import user_location
from millstream.dsl.stream import Stream
from millstream.dsl.topics import resolved_log, topic_config
from millstream.dsl.windows import duration_option
from millstream.errors import PlanError
from millstream.plan.nodes import StreamSource

if TYPE_CHECKING:
    from millstream.log import Log


@dataclass(frozen=True, slots=True)
class ProcessingTime:
    """The time at which rows are read; see `processing_time`.

    Parameters
    ----------
    column
        The name of the column with it.
    """

    column: str


def processing_time(column: str = "processing_time") -> ProcessingTime:
    """Return the time at which rows are read, for `ms.stream(…, time=ms.processing_time())`.

    Each row gets it once, in a column that is added, and everything that goes by time goes by it:
    windows, sessions, what is forgotten after some time. It goes on while no rows come, so that
    windows end by themselves; it never goes back, and no row is late.

    Another run over the same rows gives other times, and other results. What a run has committed
    stands: after a restart, rows whose results were not yet committed are read again and get the
    time that it is then, which is never before that of what was committed. A run to the end of its
    topics (`until="end"`) gives out the windows that are open then; a later run counts rows that
    fall into one of these as late.

    Parameters
    ----------
    column
        A name that the topic's columns do not have.

    Examples
    --------
    >>> processing_time()
    ProcessingTime(column='processing_time')
    """
    return ProcessingTime(column)


def stream(
    topic: str,
    time: str | ProcessingTime | None = None,
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
        The column with the event time; by default the topic's own time column. Or
        `ms.processing_time()`: when a row is read.
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
    PlanError
        When processing time has the name of a column, or is given a lateness.
    """
    location = user_location()
    log = resolved_log(log)
    config = topic_config(log, topic, location)
    lateness_us = duration_option("lateness", lateness, location)
    event_time = processed = None
    if not isinstance(time, ProcessingTime):
        event_time = config.time if time is None else time
    else:
        if lateness_us or idle_timeout is not None:
            message = (
                f"{location}: lateness and idle_timeout are for event time; by processing time no "
                "row is late, and a partition without rows holds nothing open"
            )
            raise PlanError(message)
        processed = time.column
    node = StreamSource(
        topic,
        config.schema,
        tuple(config.key),
        config.partitions,
        event_time,
        lateness_us,
        None if idle_timeout is None else duration_option("idle_timeout", idle_timeout, location),
        processing_time=processed,
        location=location,
    )
    return Stream(node, log)
