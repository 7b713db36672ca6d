"""A user's aggregate: its states by slot, as Python objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.aggregate import Aggregate, UserAggregate
from millstream.operators.weights import weights_of

Int64Array = npt.NDArray[np.int64]
T = TypeVar("T")


class UserStore:
    """The states of a user's aggregate; slots that have seen nothing have none.

    Parameters
    ----------
    aggregate
        Its `user` is what is computed; nulls are left out.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        assert aggregate.argument is not None
        self._aggregate, self._user = aggregate, _user_of(aggregate)
        self._argument = aggregate.argument
        name = f"{aggregate.argument}.user.{aggregate.name}"
        self.fields: tuple[pa.Field, ...] = (pa.field(name, self._user.state_type),)
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
        values = batch.column(self._argument).to_pylist()
        for slot, value in zip(slots.tolist(), values, strict=True):
            if value is not None:
                self._update(slot, value)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return the states of `slots`.

        Raises
        ------
        JobError
            Where a state is not of the type that was declared.
        """
        states = [self._states.get(slot) for slot in slots.tolist()]
        return [array_of_user(self._aggregate, states, self._user.state_type, "a state")]

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
        return array_of_user(self._aggregate, found, user.type, "a result")

    def _update(self, slot: int, value: Any) -> None:
        states, user = self._states, self._user
        state = states[slot] if slot in states else self._called(user.init)
        states[slot] = self._called(user.update, state, value)

    def _called(self, function: Callable[..., T], *arguments: Any) -> T:
        return called(self._aggregate, function, *arguments)


class RetractingUserStore(UserStore):
    """The states of a user's aggregate that takes values back, with how many values each has.

    Parameters
    ----------
    aggregate
        Its `user` has `retract`.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        super().__init__(aggregate)
        self.fields = (*self.fields, pa.field(f"{self.fields[0].name}.counts", pa.int64()))
        self._counts: dict[int, int] = {}

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Update the states of slots, or take back from them, row by row.

        Raises
        ------
        JobError
            Where the user's function fails.
        """
        values = batch.column(self._argument).to_pylist()
        weights = weights_of(batch).tolist()
        for slot, value, weight in zip(slots.tolist(), values, weights, strict=True):
            if value is not None:
                for _ in range(weight):
                    self._update(slot, value)
                for _ in range(-weight):
                    self._take_back(slot, value)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return the states of `slots`, and of how many values they are."""
        counts = [self._counts.get(slot, 0) for slot in slots.tolist()]
        return [*super().take(slots), pa.array(counts, pa.int64())]

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Take the states of `slots`, which have none."""
        super().add(slots, columns)
        for slot, count in zip(slots.tolist(), columns[1].to_pylist(), strict=True):
            if count:
                self._counts[slot] = count

    def clear(self, slots: Int64Array) -> None:
        """Forget the states of `slots`."""
        super().clear(slots)
        for slot in slots.tolist():
            self._counts.pop(slot, None)

    def _update(self, slot: int, value: Any) -> None:
        super()._update(slot, value)
        self._counts[slot] = self._counts.get(slot, 0) + 1

    def _take_back(self, slot: int, value: Any) -> None:
        assert self._user.retract is not None
        count = self._counts.get(slot, 0) - 1
        if count == 0:
            # What has no value left is as if it had seen none.
            del self._counts[slot], self._states[slot]
            return
        state = self._states[slot] if slot in self._states else self._called(self._user.init)
        self._states[slot] = self._called(self._user.retract, state, value)
        self._counts[slot] = count


def called(aggregate: Aggregate, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function of a user's aggregate returns.

    Raises
    ------
    JobError
        Where it fails.
    """
    try:
        return function(*arguments)
    except Exception as error:
        name = getattr(function, "__name__", "a function")
        of = _user_of(aggregate).name
        message = f"aggregate {aggregate.name!r}: {name} of {of!r} failed: {error!r}"
        raise JobError(message) from error


def array_of_user(
    aggregate: Aggregate, values: list[Any], type_: pa.DataType, what: str
) -> pa.Array:
    """Return states or results of a user's aggregate as an array of the type that was declared.

    Raises
    ------
    JobError
        Where one is of another type.
    """
    try:
        return pa.array(values, type_)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        of = _user_of(aggregate).name
        message = f"aggregate {aggregate.name!r}: {what} of {of!r} is no {type_}: {error}"
        raise JobError(message) from error


def _user_of(aggregate: Aggregate) -> UserAggregate:
    assert aggregate.user is not None
    return aggregate.user
