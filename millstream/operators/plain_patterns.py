"""Regular expressions that a plain loop matches as RE2 would: nothing is ever taken back.

`(&|^)id=([^&]*)` is two ways to match, the preferred one first, each a row of steps::

    way 0            "&id="  group begins  [^&] 0 times or more  group ends
    way 1   at 0 │    "id="  group begins  [^&] 0 times or more  group ends

Where a character may be repeated and what follows cannot begin with it, taking all there is of it
is the only way to match; and where the first of the ways matches, RE2 would take that. Any other
expression is left to RE2.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from millstream.operators.pattern_steps import (
    ANY_BYTE,
    CLASS,
    GROUP_BEGIN,
    GROUP_END,
    LITERAL,
    TEXT_END,
)

WAYS_MAX = 16
"""The most ways: each is tried at every place of a text."""

_REPEATS_MAX = 1_000
_UNBOUNDED = 2**62
_DIGITS = frozenset(range(ord("0"), ord("9") + 1))
_LETTERS = frozenset(each for each in range(128) if chr(each).isalpha())
_CLASSES = {"d": _DIGITS, "w": _DIGITS | _LETTERS | {ord("_")}, "s": frozenset(b"\t\n\f\r ")}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_NAME = re.compile(r"\?P?<[A-Za-z_]\w*>")
_ASCII = frozenset(range(128))
_LEADS = frozenset(range(0xC0, 0x100))
"""Bytes with which a character beyond ASCII begins."""


class _NotPlainError(Exception):
    """The expression is none of those that a plain loop can match, or none at all."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One step: bytes to be there, characters of a class, the text's end, a group's bound.

    A class is the set of the first bytes of its characters.
    """

    kind: int
    literal: bytes = b""
    members: frozenset[int] = frozenset()
    least: int = 1
    most: int = 1


_BEGIN = -1
"""The kind of a step that holds at the beginning of the text; it becomes a mark of its way."""

Way = tuple[_Step, ...]


@dataclass(frozen=True, slots=True)
class PlainPattern:
    """A pattern as the loop takes it.

    Parameters
    ----------
    ways
        int64, shape (k, 3): the first step, the one behind the last, and 1 where the way only
        matches at the beginning of a text.
    steps
        int64, shape (s, 4): the kind; of a literal where it starts and its size; of a class its
        number, how often it comes at least and at most.
    literals
        uint8.
    classes
        bool, shape (c, 256).
    first_byte
        With which every match begins that is not at the beginning of a text, or `ANY_BYTE`.
    """

    ways: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    literals: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.bool_]
    first_byte: int


@lru_cache(maxsize=256)
def plain_pattern(pattern: str, group: int) -> PlainPattern | None:
    """Return a regular expression of RE2 as steps that find `group`; `None`: it has no such form.

    Parameters
    ----------
    group
        Number of the group whose place is wanted; 0 is all that matched.
    """
    try:
        ways = [_joined(each, group) for each in _Parser(pattern).parse()]
        if not all(map(_is_decided, ways)):
            return None
        return _encoded([_without_begin(each) for each in ways])
    except _NotPlainError:
        return None


class _Parser:
    """Reads an expression into its ways; groups are numbered as they open, from 1."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._index = 0
        self._groups = 0

    def parse(self) -> list[Way]:
        """Return the ways of the whole expression."""
        ways = self._alternatives()
        if self._index < len(self._pattern):
            raise _NotPlainError
        return [_grouped(each, 0) for each in ways]

    def _peek(self) -> str:
        return self._pattern[self._index : self._index + 1]

    def _take(self) -> str:
        here = self._peek()
        if not here:
            raise _NotPlainError
        self._index += 1
        return here

    def _alternatives(self) -> list[Way]:
        ways = self._sequence()
        while self._peek() == "|":
            self._index += 1
            ways += self._sequence()
            if len(ways) > WAYS_MAX:
                raise _NotPlainError
        return ways

    def _sequence(self) -> list[Way]:
        parts: list[list[Way]] = []
        count = 1
        while self._peek() not in {"", "|", ")"}:
            parts.append(self._piece())
            count *= len(parts[-1])
            if count > WAYS_MAX:
                raise _NotPlainError
        return [tuple(itertools.chain(*each)) for each in itertools.product(*parts)]

    def _piece(self) -> list[Way]:
        here = self._take()
        if here == "(":
            ways = self._group()
            if self._peek() == "?":
                self._index += 1
                ways = [*ways, ()]
            if self._peek() in {"*", "+", "?", "{"}:
                raise _NotPlainError
            return ways
        if here in "^$":
            if self._peek() in {"*", "+", "?", "{"}:
                raise _NotPlainError
            return [(_Step(_BEGIN if here == "^" else TEXT_END),)]
        if here in "*+?{":
            raise _NotPlainError
        members = self._members(here)
        least, most = self._repeats()
        if isinstance(members, bytes):
            if (least, most) == (1, 1):
                return [(_Step(LITERAL, literal=members),)]
            if len(members) > 1:
                raise _NotPlainError
            members = frozenset(members)
        return [(_Step(CLASS, members=members, least=least, most=most),)]

    def _group(self) -> list[Way]:
        plain = self._pattern.startswith("?:", self._index)
        named = _NAME.match(self._pattern, self._index)
        if plain:
            self._index += 2
        elif named is not None:
            self._index = named.end()
        elif self._peek() == "?":
            raise _NotPlainError  # flags
        self._groups += not plain
        number = self._groups
        ways = self._alternatives()
        if self._take() != ")":
            raise _NotPlainError
        return ways if plain else [_grouped(each, number) for each in ways]

    def _members(self, here: str) -> bytes | frozenset[int]:
        """Return the character that stands here, or the first bytes of those that may."""
        if here == "\\":
            return self._escaped()
        if here == ".":
            return (_ASCII - {ord("\n")}) | _LEADS
        if here == "[":
            return self._class()
        return here.encode()

    def _escaped(self) -> bytes | frozenset[int]:
        here = self._take()
        if here in _CLASSES:
            return _CLASSES[here]
        if here.lower() in _CLASSES:
            return (_ASCII - _CLASSES[here.lower()]) | _LEADS
        if here in _CONTROLS:
            return _CONTROLS[here].encode()
        if here.isalnum() or not here.isascii():
            raise _NotPlainError
        return here.encode()

    def _class(self) -> frozenset[int]:
        members: set[int] = set()
        negated = self._peek() == "^"
        self._index += negated
        first = True
        while first or self._peek() != "]":
            first = False
            low = self._class_member()
            if isinstance(low, frozenset):
                members |= low
                continue
            high = low
            if self._peek() == "-" and self._pattern[self._index + 1 : self._index + 2] != "]":
                self._index += 1
                end = self._class_member()
                if isinstance(end, frozenset) or end < low:
                    raise _NotPlainError
                high = end
            members |= set(range(low, high + 1))
        self._index += 1
        return ((_ASCII - members) | _LEADS) if negated else frozenset(members)

    def _class_member(self) -> int | frozenset[int]:
        here = self._take()
        if (here == "[" and self._peek() == ":") or not here.isascii():
            raise _NotPlainError
        if here != "\\":
            return ord(here)
        found = self._escaped()
        if isinstance(found, bytes):
            return found[0]
        if found & _LEADS:
            raise _NotPlainError
        return found

    def _repeats(self) -> tuple[int, int]:
        """Return how often at least and at most what was read may come."""
        here = self._peek()
        if not here or here not in "*+?{":
            return 1, 1
        self._index += 1
        least, most = {"*": (0, _UNBOUNDED), "+": (1, _UNBOUNDED), "?": (0, 1), "{": (0, 0)}[here]
        if here == "{":
            text, closed, _ = self._pattern[self._index :].partition("}")
            low, comma, high = text.partition(",")
            digits = low.isdigit() and (high.isdigit() or not high) and text.isascii()
            if not (closed and digits):
                raise _NotPlainError
            self._index += len(text) + 1
            least = int(low)
            most = (int(high) if high else _UNBOUNDED) if comma else least
            if most < least or max(least, most % _UNBOUNDED) > _REPEATS_MAX:
                raise _NotPlainError
        if (following := self._peek()) and following in "*+?{":
            raise _NotPlainError  # a lazy one, or one of its own
        return least, most


def _grouped(way: Way, number: int) -> Way:
    """Return a way between the bounds of a group, whose number stands in `least`."""
    return (_Step(GROUP_BEGIN, least=number), *way, _Step(GROUP_END, least=number))


def _joined(way: Way, group: int) -> Way:
    """Return a way with literals that follow each other as one, and the bounds of `group` alone."""
    steps: list[_Step] = []
    for each in way:
        if each.kind in {GROUP_BEGIN, GROUP_END} and each.least != group:
            continue
        if each.kind == LITERAL and steps and steps[-1].kind == LITERAL:
            steps[-1] = _Step(LITERAL, literal=steps[-1].literal + each.literal)
        else:
            steps.append(each)
    return tuple(steps)


def _is_decided(way: Way) -> bool:
    """Return `True` iff whatever a way repeats cannot be what comes behind it."""
    return all(
        each.least == each.most or not each.members & _beginnings(way[index + 1 :])
        for index, each in enumerate(way)
        if each.kind == CLASS
    )


def _beginnings(way: Way) -> frozenset[int]:
    """Return the bytes with which what `way` matches may begin."""
    found: set[int] = set()
    for each in way:
        if each.kind == LITERAL:
            return frozenset(found | {each.literal[0]})
        if each.kind == CLASS:
            found |= each.members
            if each.least > 0:
                break
    return frozenset(found)


def _without_begin(way: Way) -> tuple[Way, bool]:
    """Return a way without the mark of the beginning, and whether it had one."""
    kinds = [each.kind for each in way]
    marked = _BEGIN in kinds
    if marked:
        before = kinds[: len(kinds) - kinds[::-1].index(_BEGIN)]
        if set(before) - {_BEGIN, GROUP_BEGIN, GROUP_END}:
            raise _NotPlainError  # behind something that might be empty
    if TEXT_END in kinds and set(kinds[kinds.index(TEXT_END) :]) & {LITERAL, CLASS}:
        raise _NotPlainError
    return tuple(each for each in way if each.kind != _BEGIN), marked


def _encoded(ways: list[tuple[Way, bool]]) -> PlainPattern:
    literals, classes = bytearray(), list[Any]()
    bounds: list[tuple[int, int, bool]] = []
    steps: list[tuple[int, int, int, int]] = []
    for way, begins in ways:
        first = len(steps)
        for each in way:
            if each.kind == LITERAL:
                steps.append((LITERAL, len(literals), len(each.literal), 0))
                literals += each.literal
            elif each.kind == CLASS:
                steps.append((CLASS, len(classes), each.least, each.most))
                classes.append([byte in each.members for byte in range(256)])
            else:
                steps.append((each.kind, 0, 0, 0))
        bounds.append((first, len(steps), begins))
    return PlainPattern(
        np.array(bounds, dtype=np.int64).reshape(-1, 3),
        np.array(steps, dtype=np.int64).reshape(-1, 4),
        np.frombuffer(bytes(literals), dtype=np.uint8).copy(),
        np.array(classes, dtype=np.bool_).reshape(-1, 256),
        _first_byte([way for way, begins in ways if not begins]),
    )


def _first_byte(ways: list[Way]) -> int:
    """Return the byte with which all of `ways` begin, or `ANY_BYTE`."""
    firsts: set[int] = set()
    for way in ways:
        filling = [each for each in way if each.kind in {LITERAL, CLASS}]
        if not filling or (filling[0].kind == CLASS and filling[0].least == 0):
            return ANY_BYTE
        firsts |= _beginnings(tuple(filling[:1]))
    return firsts.pop() if len(firsts) == 1 else ANY_BYTE
