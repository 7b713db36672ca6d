"""Where the offsets of a group are to go: to an end, an offset, a time, or some rows further."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from millstream.errors import NoCommittedOffsetError, OptionError
from millstream.log.consumer import TopicPartition
from millstream.log.topic import Topic


class OffsetChange(NamedTuple):
    """What a reset does, or would do, to one partition.

    Attributes
    ----------
    partition
        Of which topic.
    before, after
        Committed offsets; `None` before: there was none.
    generation
        Of the topic: the partition is one of those that it has, or had, in it.
    """

    partition: TopicPartition
    before: int | None
    after: int
    generation: int


@dataclass(frozen=True, slots=True)
class ResetTarget:
    """Where to; exactly one of these is given.

    Parameters
    ----------
    to
        `"beginning"`: the first row that is kept; `"end"`: behind the last committed one.
    offset
        An offset, the same in each partition.
    time_us
        The first row of that time or later, in microseconds since 1970-01-01 UTC; or a
        `datetime` with a time zone.
    shift
        So many rows further, or back where it is negative, than what is committed.
    """

    to: Literal["beginning", "end"] | None = None
    offset: int | None = None
    time_us: int | datetime | None = None
    shift: int | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.to, self.offset, self.time_us, self.shift)]
        if sum(each is not None for each in given) != 1:
            message = "give one of beginning, end, an offset, a time and a shift to reset to"
            raise OptionError(message)
        if self.to not in {None, "beginning", "end"}:
            message = f"a group is reset to 'beginning' or 'end'; got {self.to!r}"
            raise OptionError(message)
        if isinstance(self.time_us, datetime) and self.time_us.tzinfo is None:
            message = f"{self.time_us} has no time zone; give one, e.g. datetime.UTC"
            raise OptionError(message)

    @property
    def is_of_all_generations(self) -> bool:
        """Whether it says where to go in every generation of a topic, not in one of them."""
        return self.to is not None or self.time_us is not None

    def of(self, topic: Topic, generation: int, partition: int, committed: int | None) -> int:
        """Return the offset in a partition, moved into the range of those that there are.

        Raises
        ------
        NoCommittedOffsetError
            Where it is to be shifted and there is none yet.
        """
        first = topic.partition(partition, generation).first_offset
        end = topic.stable_end(partition, generation)
        if self.offset is not None:
            wanted = self.offset
        elif self.time_us is not None:
            time_us = self.time_us
            if isinstance(time_us, datetime):
                time_us = round(time_us.timestamp() * 1_000_000)
            wanted = topic.offset_at_time(partition, time_us, generation)
        elif self.shift is not None:
            if committed is None:
                message = (
                    f"nothing is committed in partition {partition} of {topic.name!r}, so there "
                    "is nothing to shift; reset it to an offset"
                )
                raise NoCommittedOffsetError(message)
            wanted = committed + self.shift
        else:
            wanted = first if self.to == "beginning" else end
        return max(first, min(wanted, end))
