"""Channels in memory: messages of one exchange from one worker to another, bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from millstream.runtime.messages import Message


def wake_nobody() -> None:
    """Do nothing: who waits looks by itself."""


class MemoryChannel:
    """A queue with one thread at each end.

    Parameters
    ----------
    limit_bytes
        It takes no more rows while this much waits in it.
    wake_sender, wake_receiver
        Called when there is room again, and when a message came.
    """

    def __init__(
        self,
        limit_bytes: int,
        wake_sender: Callable[[], None] = wake_nobody,
        wake_receiver: Callable[[], None] = wake_nobody,
    ) -> None:
        self._messages: deque[Message] = deque()
        self._limit_bytes = limit_bytes
        # Each is written by one end only, so that no lock is needed.
        self._sent_bytes = 0
        self._taken_bytes = 0
        self._wake_sender = wake_sender
        self._wake_receiver = wake_receiver

    @property
    def waiting_bytes(self) -> int:
        """What waits in the channel."""
        return self._sent_bytes - self._taken_bytes

    def has_room(self) -> bool:
        """Return `True` iff rows may be sent."""
        return self.waiting_bytes < self._limit_bytes

    def send(self, message: Message) -> None:
        """Put a message in; what is no rows may be put in at any time."""
        self._sent_bytes += message.size_bytes
        self._messages.append(message)
        self._wake_receiver()

    def peek(self) -> Message | None:
        """Return the next message, which stays; `None`: there is none."""
        return self._messages[0] if self._messages else None

    def take(self) -> Message:
        """Take the next message."""
        message = self._messages.popleft()
        self._taken_bytes += message.size_bytes
        # Asked after the count has changed: a sender that found no room before is woken.
        if self.has_room() and self.waiting_bytes + message.size_bytes >= self._limit_bytes:
            self._wake_sender()
        return message
