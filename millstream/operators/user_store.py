"""A user's aggregate: its states by slot, as Python objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.aggregate import Aggregate, UserAggregate

Int64Array = npt.NDArray[np.int64]
T = TypeVar("T")


class UserStore:
    """The states of a user's aggregate; slots that have seen nothing have none.

    Parameters
    ----------
    name
        Of the result, for messages.
    argument
        Column of the input; nulls are left out.
    user
        What is computed.
    """

    def __init__(self, name: str, argument: str, user: UserAggregate) -> None:
        self._name, self._argument, self._user = name, argument, user
        self.fields = (pa.field(f"{argument}.user.{name}", user.state_type),)
        self._states: dict[int, Any] = {}

    @property
    def size_bytes(self) -> int:
        """Memory held: what cannot be known of objects is counted as 64 bytes each."""
        return 64 * len(self._states)

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Update the states of slots, row by row.

        Raises
        ------
        JobError
            Where the user's function fails.
        """
        states, user = self._states, self._user
        values = batch.column(self._argument).to_pylist()
        for slot, value in zip(slots.tolist(), values, strict=True):
            if value is not None:
                state = states[slot] if slot in states else self._called(user.init)
                states[slot] = self._called(user.update, state, value)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return the states of `slots`.

        Raises
        ------
        JobError
            Where a state is not of the type that was declared.
        """
        states = [self._states.get(slot) for slot in slots.tolist()]
        return [self._array(states, self._user.state_type, "a state")]

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge states into those of `slots`."""
        for slot, state in zip(slots.tolist(), columns[0].to_pylist(), strict=True):
            if state is not None and slot in self._states:
                self._states[slot] = self._called(self._user.merge, self._states[slot], state)
            elif state is not None:
                self._states[slot] = state

    def clear(self, slots: Int64Array) -> None:
        """Forget the states of `slots`."""
        for slot in slots.tolist():
            self._states.pop(slot, None)

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the results; null where nothing was seen."""
        user, states = self._user, self._states
        found = [
            self._called(user.finish, states[slot]) if slot in states else None
            for slot in slots.tolist()
        ]
        return self._array(found, user.type, "a result")

    def empty(self) -> UserStore:
        """Return a store like this one that keeps nothing."""
        return UserStore(self._name, self._argument, self._user)

    def _called(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return function(*arguments)
        except Exception as error:
            name = getattr(function, "__name__", "a function")
            message = f"aggregate {self._name!r}: {name} of {self._user.name!r} failed: {error!r}"
            raise JobError(message) from error

    def _array(self, values: list[Any], type_: pa.DataType, what: str) -> pa.Array:
        try:
            return pa.array(values, type_)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            message = (
                f"aggregate {self._name!r}: {what} of {self._user.name!r} is no {type_}: {error}"
            )
            raise JobError(message) from error
