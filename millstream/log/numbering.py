"""Numbers the appends of a named producer, so that one which is made again is stored once."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors import OptionError, SequenceError
from millstream.log.partition import Partition

PIECE_BITS = 16
"""A sequence in the log is an append's number, and in its low bits the number of a frame of it."""

PIECES_MAX = 1 << PIECE_BITS
NUMBER_MAX = (1 << (63 - PIECE_BITS)) - 1


class Numbering:
    """The numbers of the owner `owner_id` in a topic of `partitions`.

    Attributes
    ----------
    last
        The number of the latest append; at first the highest that a partition has; 0: none.
    """

    def __init__(self, owner_id: int, partitions: Sequence[Partition]) -> None:
        self._owner_id = owner_id
        self._partitions = partitions
        self._follows: dict[int, int] = {}
        self._piece = 0
        self._failed: object = None
        self._may_go_back = True
        self.last = max(self.stored())

    def stored(self) -> list[int]:
        """Return for each partition the number of the last append that has rows there; 0: none."""
        return [each.last_sequence(self._owner_id) >> PIECE_BITS for each in self._partitions]

    def begin(self, rows: object, number: int | None) -> int:
        """Begin an append, and return its number.

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
        self.last = number
        self._piece = 0
        self._failed = rows  # until it is done
        self._may_go_back = True
        return number

    def next_frame(self, partition: int) -> tuple[int, int]:
        """Return the sequence of the next frame, and of the one that it follows there."""
        if self._piece >= PIECES_MAX:
            message = f"an append has at most {PIECES_MAX} frames; append less at once"
            raise OptionError(message)
        sequence = (self.last << PIECE_BITS) + self._piece
        self._piece += 1
        return sequence, self._follows.get(partition, 0)

    def stored_frame(self, partition: int, sequence: int) -> None:
        """Take note that a frame is in the log."""
        self._follows[partition] = max(sequence, self._follows.get(partition, 0))

    def done(self) -> None:
        """End an append that went well."""
        self._failed = None
        self._may_go_back = False

    def lost(self) -> None:
        """Rows that were appended may be gone: they may be appended again, with their numbers."""
        self._follows.clear()
        self._may_go_back = True
