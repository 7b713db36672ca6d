"""Gives a topic another number of partitions: closes its generation, and begins another one.

close each partition ─▶ `topic.json` is replaced ─▶ readers of the old ones are woken
(who dies in here: the next producer opens them again)
"""

from __future__ import annotations

from contextlib import suppress

from millstream.clock import Clock
from millstream.errors import LockTimeoutError, LogError
from millstream.log.topic import Topic
from millstream.storage import Storage


def repartition(topic: Topic, partitions: int, path: str, storage: Storage, clock: Clock) -> None:
    """Give `topic` of the log in `path` so many partitions; see `Log.repartition`."""
    with storage.lock(f"{path}/topics.lock"):
        topic.refresh()
        before = topic.config
        before.repartitioned(partitions, (), 0)  # raises where there cannot be so many
        if partitions == before.partitions:
            return
        try:
            ends = topic.close()
            altered = before.repartitioned(partitions, ends, clock.now_us())
            storage.write_file(f"{topic.directory}/topic.json", altered.to_file())
        except (LogError, OSError) as error:
            topic.refresh()
            if topic.config.generation == before.generation:
                with suppress(LogError):  # else the next producer does
                    topic.reopen()
            if isinstance(error, LockTimeoutError):
                raise
            message = (
                f"topic {topic.name!r} could not be given {partitions} partitions: {error}; it "
                f"has {topic.partitions}"
            )
            raise LogError(message) from error
    topic.refresh()
    for index in range(before.partitions):
        topic.bells.ring(topic.bell(index))
