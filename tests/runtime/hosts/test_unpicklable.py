"""What cannot be sent to another process is named, with the line that put it there."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from millstream.runtime.hosts.unpicklable import Culprit, find_unpicklable


@dataclass
class Step:
    """As a node of a plan: what it does, and where the user wrote it."""

    holds: Any
    location: str = "unknown"


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Unspeakable:
    def __repr__(self) -> str:
        message = "no"
        raise RuntimeError(message)

    def __reduce__(self) -> Any:
        message = "will not be sent"
        raise TypeError(message)


def found(value: object) -> Culprit:
    culprit = find_unpicklable(value, pickle.dumps)
    assert culprit is not None
    return culprit


def test_there_is_nothing_to_find_where_everything_can_be_pickled() -> None:
    assert find_unpicklable(Step({"a": [1, (2, 3)]}), pickle.dumps) is None


@pytest.mark.parametrize(
    ("holds", "held_as"),
    [
        (lambda lock: lock, ".holds"),
        (lambda lock: [1, lock], ".holds[1]"),
        (lambda lock: {"key": (lock,)}, ".holds['key'][0]"),
        (lambda lock: Plain(well=1, ill=lock), ".holds.ill"),
        (lambda lock: {lock}, ".holds[0]"),
    ],
)
def test_the_innermost_object_is_named_with_what_holds_it(holds: Any, held_as: str) -> None:
    culprit = found(Step(holds(threading.Lock()), "job.py:3"))
    assert culprit.held_as == held_as.removeprefix(".")
    assert (culprit.kind, culprit.location) == ("lock", "job.py:3")
    assert "cannot pickle '_thread.lock' object" in str(culprit)


def test_the_line_is_that_of_the_innermost_step() -> None:
    outer = Step([Step(1, "job.py:1"), Step(Step(threading.Lock(), "job.py:2"), "")], "job.py:9")
    assert found(outer).location == "job.py:2"
    assert found(Step(Step(threading.Lock(), ""), "job.py:9")).location == "job.py:9"


def test_functions_hold_what_they_close_over_and_the_globals_that_they_use() -> None:
    lock = threading.Lock()

    def compile_for(parallelism: int, _: Any) -> Any:
        return lock, parallelism

    assert found(compile_for).held_as == "lock"


def test_what_holds_itself_is_found_too() -> None:
    circle = Plain(lock=threading.Lock())
    circle.__dict__["again"] = [circle]
    assert found(circle).kind in {"lock", "list"}


def test_an_object_that_cannot_be_shown_is_named_by_its_type() -> None:
    assert str(found([Unspeakable()])) == (
        "[0], of type Unspeakable (which cannot be shown): will not be sent"
    )


def test_a_long_text_is_cut() -> None:
    class Long(Unspeakable):
        def __repr__(self) -> str:
            return "x" * 1_000

    assert len(found([Long()]).text) == 60
