"""A function's source with all that it reads stands alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from millstream.dsl.shipping import NotCompilableError, source_of, unshippable

FACTOR = 2.5
ENDS = (1, (math.inf, "x"))
TABLE = {"a": 1}
LOCK = threading.Lock()


def inner(x: float) -> float:
    return x * FACTOR


def outer(x: float) -> float:
    return float(inner(x) + np.float64(1.5) + len(ENDS) + math.floor(x))


def recursive(n: int) -> int:
    return 1 if n < 2 else n * recursive(n - 1)


def looks_up(x: str) -> int:
    return TABLE[x]


def waits(x: float) -> float:
    return hidden(x)


def hidden(x: float) -> float:
    with LOCK:
        return x


def with_closure(step: int) -> Callable[[int], int]:
    def shifted(x: int) -> int:
        return x + step

    return shifted


def alone(function: Callable[..., Any]) -> Any:
    """What the source makes, where there is nothing else."""
    source, name = source_of(function)
    plain = source.replace(
        "from millstream.jit import user_function", "user_function = lambda f: f"
    )
    space: dict[str, Any] = {}
    exec(plain, space)
    return space[name]


def test_what_is_read_comes_along() -> None:
    assert alone(outer)(3.0) == outer(3.0)
    assert alone(recursive)(5) == 120
    assert alone(with_closure(7))(1) == 8
    assert alone(lambda x: x * FACTOR)(2) == 5.0


def test_the_source_is_the_same_whenever_it_is_written() -> None:
    assert source_of(outer) == source_of(outer)
    assert source_of(with_closure(1)) != source_of(with_closure(2))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (looks_up, r"it reads 'TABLE' \(dict\)"),
        (len, "its source is not at hand"),
        (eval("lambda x: x"), "its source is not at hand"),
        ([lambda x: x, lambda x: x + 1][0], "write it as a def"),
    ],
)
def test_what_does_not_stand_alone_says_why(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(NotCompilableError, match=reason):
        source_of(function)


def test_what_cannot_be_sent_is_found_however_deep() -> None:
    assert unshippable(looks_up) is None
    assert unshippable(waits) == "'LOCK' (lock)"
    assert unshippable(len) is None
