"""What a user writes to handle the rows of each key one by one, with state and timers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeAlias

import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import JobError, nearest

Made: TypeAlias = Mapping[str, Any] | Iterable[Mapping[str, Any]] | None
"""What a call gives out: no row, one, or several."""
Converter: TypeAlias = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)
_SAME_IN_ARROW = {"int64": int, "double": float, "string": str, "bool": bool}


class ProcessFunction:
    """A function of the rows of each key that keeps state and sets timers.

    Derive from it, and give it to `stream.key_by(…).process(…)`. What is kept of a key is in
    `context.state` alone: a worker's instance is made anew whenever the job starts.

    `state` and `output` are the names and types of what is kept of a key and of the columns of a
    result, types as in `cast`: `{"count": "int64"}` or `pyarrow.DataType`s.

    Examples
    --------
    Tell of a sensor that has been silent for ten minutes:

    >>> from datetime import timedelta
    >>> class Silent(ProcessFunction):
    ...     state = {"timer": "timestamp"}
    ...     output = {"silent_since": "timestamp"}
    ...
    ...     def on_row(self, row, context):
    ...         if context.state["timer"] is not None:
    ...             context.clear_timer(context.state["timer"])
    ...         context.state["timer"] = context.set_timer(timedelta(minutes=10))
    ...
    ...     def on_timer(self, context):
    ...         context.state.clear()
    ...         return {"silent_since": context.time - timedelta(minutes=10)}
    """

    state: ClassVar[Mapping[str, Any]] = {}
    output: ClassVar[Mapping[str, Any]] = {}

    def on_row(self, row: dict[str, Any], context: ProcessContext) -> Made:
        """Take a row; return or yield rows of `output`, or nothing.

        Parameters
        ----------
        row
            Its columns by name, as Python objects.
        context
            The key, its state and its timers, as they are at this row.
        """
        raise NotImplementedError

    def on_timer(self, context: ProcessContext) -> Made:
        """Do what was to be done at `context.time`; return as `on_row` does."""
        return None


class State:
    """What is kept of the present key, by name; `None` where nothing was set."""

    __slots__ = ("_converters", "_values", "is_changed")

    def __init__(self, converters: Mapping[str, Converter]) -> None:
        self._converters = converters
        self._values: dict[str, Any] = {}
        self.is_changed = False

    def __getitem__(self, name: str) -> Any:
        if name not in self._converters:
            raise self._unknown(name)
        return self._values.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._converters:
            raise self._unknown(name)
        self._values[name] = value
        self.is_changed = True

    def __iter__(self) -> Iterator[str]:
        return iter(self._converters)

    def clear(self) -> None:
        """Forget all of it."""
        self._values.clear()
        self.is_changed = True

    def turn_to(self, values: dict[str, Any]) -> None:
        """Be the state of another key. For the operator only."""
        self._values = values
        self.is_changed = False

    def _unknown(self, name: str) -> KeyError:
        return KeyError(f"no state {name!r}{nearest(str(name), list(self._converters))}")


class ProcessContext:
    """What a call of a `ProcessFunction` has beside its row.

    Parameters
    ----------
    state
        Of the present key.
    key_of
        Gives the key's columns, for the operator's number of it.
    """

    def __init__(self, state: State, key_of: Callable[[int], dict[str, Any]]) -> None:
        self.state = state
        self._key_of = key_of
        self._slot = -1
        self._time_us: int | None = None
        self._least_us: int | None = None
        self.timers_set: set[int] = set()
        self.timers_cleared: set[int] = set()

    @property
    def key(self) -> dict[str, Any]:
        """The key's columns by name."""
        return self._key_of(self._slot)

    @property
    def time(self) -> datetime | None:
        """The event time of the row, or of the timer; `None` where rows have none."""
        return None if self._time_us is None else _EPOCH + self._time_us * _MICROSECOND

    def set_timer(self, when: datetime | timedelta) -> datetime:
        """Let `on_timer` be called once event time has come to `when`; return that time.

        Parameters
        ----------
        when
            A time with a zone, or how long after `time`. One that is past means as soon as can
            be. A time that was set already stays set once.
        """
        time_us = max(self._microseconds(when), self._floor())
        self.timers_cleared.discard(time_us)
        self.timers_set.add(time_us)
        return _EPOCH + time_us * _MICROSECOND

    def clear_timer(self, when: datetime) -> None:
        """Let `on_timer` not be called at `when`, if it was to be."""
        time_us = self._microseconds(when)
        self.timers_set.discard(time_us)
        self.timers_cleared.add(time_us)

    def turn_to(self, slot: int, time_us: int | None, least_us: int | None) -> None:
        """Be the context of another call. For the operator only.

        Parameters
        ----------
        slot
            The key's number.
        time_us
            Of the row or timer.
        least_us
            The least time that a timer can have; `None`: there are no timers.
        """
        self._slot, self._time_us, self._least_us = slot, time_us, least_us
        self.timers_set, self.timers_cleared = set(), set()

    def _floor(self) -> int:
        if self._least_us is None:
            message = "a timer needs event time, and these rows have none"
            raise JobError(message)
        return self._least_us

    def _microseconds(self, when: datetime | timedelta) -> int:
        floor = self._floor()
        if isinstance(when, timedelta):
            return (floor if self._time_us is None else self._time_us) + when // _MICROSECOND
        if not isinstance(when, datetime) or when.tzinfo is None:
            message = f"a timer is set by a time with a zone, or a timedelta; got {when!r}"
            raise JobError(message)
        return (when - _EPOCH) // _MICROSECOND


def converter_of(name: str, type_: pa.DataType) -> Converter:
    """Return what makes of a value the one that Arrow would give back for `type_`.

    So that a key's state is the same whether or not it was in a checkpoint meanwhile.

    Examples
    --------
    >>> converter_of("count", pa.float32())(0.1)
    0.10000000149011612
    """
    same = _SAME_IN_ARROW.get(str(type_))

    def converted(value: Any) -> Any:
        if value is None or (type(value) is same and (same is not int or value in _INT64)):
            return value
        try:
            return pa.scalar(value, type_).as_py()
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            message = f"{name!r} is {type_}, and was given {value!r}: {error}"
            raise JobError(message) from error

    return converted


def rows_of(made: object) -> Iterable[Mapping[str, Any]]:
    """Return the rows that a call gave.

    Raises
    ------
    JobError
        When it gave something else.
    """
    if made is None:
        return ()
    rows = (made,) if isinstance(made, Mapping) else made
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        message = f"it gave {made!r}, and not a row such as {{'name': value}}, or several"
        raise JobError(message)
    return rows


def can_be_changed_in_place(type_: pa.DataType) -> bool:
    """Return `True` iff a value of `type_` is a list or dictionary in Python."""
    return bool(pat.is_nested(type_))
