"""Finds what cannot be sent to another process: the object, where it is held, the user's line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from types import FunctionType
from typing import Any

REPR_LENGTH_MAX = 60
DEPTH_MAX = 50


@dataclass(frozen=True, slots=True)
class Culprit:
    """The innermost object that cannot be pickled.

    Parameters
    ----------
    held_as
        How it is reached from what was to be sent, e.g. `"roots[0].input.condition"`.
    kind
        Its type.
    text
        What it looks like, cut where that is long.
    location
        The user's file and line that made the step that holds it; `None`: not known.
    error
        What pickling it raised.
    """

    held_as: str
    kind: str
    text: str
    location: str | None
    error: Exception

    def __str__(self) -> str:
        """Return it as a part of a sentence."""
        return f"{self.held_as}, of type {self.kind} ({self.text}): {self.error}"


def find_unpicklable(value: object, dumps: Callable[[object], bytes]) -> Culprit | None:
    """Return the innermost part of `value` for which `dumps` raises; `None`: there is none.

    Looks into functions (what they close over), dataclasses, attributes, tuples, lists, sets
    and dicts. Pickles what it meets, one level after the other: for error messages only.
    """
    error = _error(value, dumps)
    if error is None:
        return None
    held_as, location, seen = "", None, {id(value)}
    for _ in range(DEPTH_MAX):
        location = _location(value) or location
        for name, part in _parts(value):
            part_error = None if id(part) in seen else _error(part, dumps)
            if part_error is not None:
                seen.add(id(part))
                held_as, value, error = (held_as + name).lstrip("."), part, part_error
                break
        else:
            break
    return Culprit(held_as or "it", type(value).__name__, _text(value), location, error)


def _error(value: object, dumps: Callable[[object], bytes]) -> Exception | None:
    try:
        dumps(value)
    except Exception as error:
        return error
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield what `value` holds, each with how it is written behind it."""
    if isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with suppress(ValueError):  # nothing was put into it yet
                yield f".{name}", cell.cell_contents
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f".{name}", value.__globals__[name]
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", each) for key, each in value.items())
    elif isinstance(value, tuple | list | set | frozenset):
        yield from ((f"[{index}]", each) for index, each in enumerate(value))
    else:
        if is_dataclass(value):
            yield from ((f".{each.name}", getattr(value, each.name)) for each in fields(value))
        attributes: dict[str, Any] = getattr(value, "__dict__", {})
        yield from ((f".{name}", each) for name, each in attributes.items())


def _location(value: object) -> str | None:
    """Return the line of the user's that made a step of a plan."""
    location = getattr(value, "location", None)
    return location if isinstance(location, str) and location else None


def _text(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        return "which cannot be shown"
    return text if len(text) <= REPR_LENGTH_MAX else text[: REPR_LENGTH_MAX - 1] + "…"
