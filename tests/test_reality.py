from __future__ import annotations

import random

import pytest

from millstream import reality
from millstream.clock import SystemClock
from millstream.log import Log
from millstream.storage_local import LocalStorage
from millstream.storage_memory import MemoryDisk


def test_outside_of_a_simulation_all_is_allowed() -> None:
    reality.require_reality("Anything")


def test_inside_the_caller_is_named() -> None:
    with reality.simulation(), pytest.raises(AssertionError, match="SystemClock constructed"):
        reality.require_reality("SystemClock")


def test_simulations_nest_and_end_also_by_an_error() -> None:
    with pytest.raises(ZeroDivisionError), reality.simulation():
        with reality.simulation():
            pass
        with pytest.raises(AssertionError):
            reality.require_reality("Anything")
        _ = 1 / 0
    reality.require_reality("Anything")


@pytest.mark.parametrize("reaches", [SystemClock, LocalStorage, lambda: Log("/tmp/none")])
def test_what_reaches_the_machine_cannot_be_made(reaches: type) -> None:
    with reality.simulation(), pytest.raises(AssertionError, match="pass the simulated one"):
        reaches()


def test_a_log_in_memory_needs_its_clock_too() -> None:
    storage = MemoryDisk(random.Random(0)).storage("a")
    with reality.simulation(), pytest.raises(AssertionError, match="SystemClock"):
        Log("/log", storage=storage)
