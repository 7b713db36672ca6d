"""Work that may run beside a worker, in order: appending to topics. Hosts provide how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """The result of work that was handed over."""

    def done(self) -> bool:
        """Return `True` iff `result` returns at once."""
        ...

    def result(self) -> T_co:
        """Wait for the work and return what it did, or raise what it raised."""
        ...


class Background(Protocol):
    """Does what it is given, one after another, in the order in which it was given."""

    def has_room(self) -> bool:
        """Return `True` iff it should be given more now."""
        ...

    def submit(self, work: Callable[[], T], size_bytes: int = 0) -> Pending[T]:
        """Hand work over that holds `size_bytes` of memory until it is done."""
        ...


class Done(Generic[T]):
    """The result of work that was done at once."""

    def __init__(self, value: T) -> None:
        self._value = value

    def done(self) -> bool:
        """Return `True`."""
        return True

    def result(self) -> T:
        """Return the value."""
        return self._value


class AtOnce:
    """Does work when it is handed over, on the same thread."""

    def has_room(self) -> bool:
        """Return `True`: nothing waits."""
        return True

    def submit(self, work: Callable[[], T], size_bytes: int = 0) -> Pending[T]:
        """Do the work."""
        return Done(work())
