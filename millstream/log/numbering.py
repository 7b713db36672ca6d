"""Numbers the appends of a named producer, so that one which is made again is stored once."""

from __future__ import annotations

from millstream.errors import OptionError, SequenceError
from millstream.log.topic import Topic

PIECE_BITS = 16
"""A sequence in the log is an append's number, and in its low bits the number of a frame of it."""

PIECES_MAX = 1 << PIECE_BITS
NUMBER_MAX = (1 << (63 - PIECE_BITS)) - 1


class Numbering:
    """The numbers of the owner `owner_id` in a topic.

    Attributes
    ----------
    last
        The number of the latest append; at first the highest that a partition has, of whatever
        generation; 0: none.
    """

    def __init__(self, owner_id: int, topic: Topic) -> None:
        self._owner_id = owner_id
        self._topic = topic
        self._follows: dict[tuple[int, int], int] = {}
        self._piece = 0
        self._failed: object = None
        self._may_go_back = True
        self.last = max(max(self.stored(each)) for each in topic.config.generations)

    def stored(self, generation: int | None = None) -> list[int]:
        """Return for each partition the number of the last append that has rows there; 0: none."""
        generation = self._topic.config.generation if generation is None else generation
        return [
            each.last_sequence(self._owner_id) >> PIECE_BITS
            for each in self._topic.partitions_of(generation)
        ]

    def begin(self, rows: object, number: int | None) -> tuple[int, int | None]:
        """Begin an append, and return its number, and in which generation it begins.

        `None`: in the present one. One that is made again begins in the oldest that may have rows
        of it: its partitions, closed or not, tell which they have.

        Without a number it is the next one; or that of the append that failed, where `rows` are
        the very same object.

        Raises
        ------
        SequenceError
            Where `number` is below one that was appended: numbers only grow, but after an error.
        """
        if number is None:
            is_again = self._failed is not None and rows is self._failed
            number = self.last if is_again else self.last + 1
        elif not 0 < number <= NUMBER_MAX:
            message = f"a sequence is a number from 1 to {NUMBER_MAX}; got {number}"
            raise OptionError(message)
        elif number < self.last and not self._may_go_back:
            message = (
                f"sequence {number} comes after {self.last}; a producer's sequences only grow "
                "(the same one again is the same append)"
            )
            raise SequenceError(message)
        generation = None if number > self.last else self._generation_of(number)
        self.last = number
        self._piece = 0
        self._failed = rows  # until it is done
        self._may_go_back = True
        return number, generation

    def _generation_of(self, number: int) -> int:
        config = self._topic.refreshed()
        for each in config.older:
            if max(self.stored(each.number)) >= number:
                return each.number
        return config.generation

    def next_frame(self, place: tuple[int, int]) -> tuple[int, int]:
        """Return the sequence of the next frame, and of the one that it follows there.

        `place` is a generation and a partition. A frame that is not stored leaves its sequence to
        the next one: the rest of an append has the same numbers wherever its beginning is.
        """
        if self._piece >= PIECES_MAX:
            message = f"an append has at most {PIECES_MAX} frames; append less at once"
            raise OptionError(message)
        sequence = (self.last << PIECE_BITS) + self._piece
        return sequence, self._follows.get(place, 0)

    def stored_frame(self, place: tuple[int, int], sequence: int) -> None:
        """Take note that a frame is in the log."""
        self._piece += 1
        self._follows[place] = max(sequence, self._follows.get(place, 0))

    def done(self) -> None:
        """End an append that went well."""
        self._failed = None
        self._may_go_back = False

    def lost(self) -> None:
        """Rows that were appended may be gone: they may be appended again, with their numbers."""
        self._follows.clear()
        self._may_go_back = True
