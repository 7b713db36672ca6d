"""The ends of a channel between two workers, as a worker sees them; hosts provide them."""

from __future__ import annotations

from typing import Protocol

from millstream.runtime.messages import Message


class Outlet(Protocol):
    """The sending end of the channel from one worker to another in one exchange."""

    def has_room(self) -> bool:
        """Return `True` iff a batch may be sent; other messages may be sent at any time."""
        ...

    def send(self, message: Message) -> None:
        """Send; messages arrive in the order in which they were sent."""
        ...


class Inlet(Protocol):
    """The receiving end."""

    def peek(self) -> Message | None:
        """Return the next message, which stays; `None`: there is none now."""
        ...

    def take(self) -> Message:
        """Take the message that `peek` returned."""
        ...


class Channels(Protocol):
    """All channels of an attempt, as one worker sees them."""

    def outlet(self, exchange: str, receiver: int) -> Outlet:
        """Return the end through which rows of `exchange` go to worker `receiver`."""
        ...

    def inlet(self, exchange: str, sender: int) -> Inlet:
        """Return the end through which rows of `exchange` come from worker `sender`."""
        ...
