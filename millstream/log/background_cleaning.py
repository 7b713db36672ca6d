"""Cleaning by itself: who starts a segment has the partition cleaned beside its other work.

It happens in the process that started the segment, on a thread of its own with a log of its own,
outside of every lock that appends and readers take. Where another process cleans already, or a
compaction would not be worth its while, nothing is done; where the process ends, it stops between
two frames, and the next cleaning goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from millstream.clock import Clock
from millstream.errors import LockTimeoutError, UnknownTopicError
from millstream.log.generations import partition_name
from millstream.log.settings import TopicSettings
from millstream.storage import Storage


def clean_later(
    storage: Storage,
    clock: Clock,
    path: str,
    topic: str,
    index: int,
    generation: int,
    settings: TopicSettings,
) -> None:
    """Clean a partition of a topic of the log in `path` soon, if there may be something."""
    removes = settings.deletes and (settings.retention_ms >= 0 or settings.retention_bytes >= 0)
    if removes or settings.compacts or settings.remote_storage_place:
        work = partial(_clean, storage, clock, path, topic, index, generation)
        storage.run_later(f"cleaning of {partition_name(topic, generation, index)} in {path}", work)


def _clean(
    storage: Storage,
    clock: Clock,
    path: str,
    topic: str,
    index: int,
    generation: int,
    stopping: Callable[[], bool],
) -> None:
    from millstream.log.compaction import CleaningStoppedError
    from millstream.log.log import Log

    try:
        log = Log(path, storage=storage, clock=clock)
        log.topic(topic).cleaning.clean_if_due(index, generation, stopping)
    except (CleaningStoppedError, LockTimeoutError, UnknownTopicError):
        return  # the next cleaning goes on; another process is at it; nothing is left to clean
