"""Thousands of seeded schedules, most of them short: what is promised holds whoever dies, and when.

`python -m tests.log.nightly` runs tens of thousands.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.log.simulated.simulation import Simulation

SHORT = range(3_000)
SHORT_STEPS = (1, 2, 4)
"""Of a process each; others act in the middle of these: it is about twice as much in all."""
SHORT_AT_ONCE = 250
LONG = range(10_000, 10_024)
LONG_STEPS = 40
EVENTS = ("deaths", "power cuts", "commits", "interrupts", "waits", "refused", "named", "rows kept")
LONG_EVENTS = ("fenced", "compacted", "moved", "removed", "erasures", "backups", "shortened")
SEEDS_THAT_FAILED = ((161, 30), (264, 30), (700_045, 60), (700_387, 60))
"""Seeds that once found a bug, and how long they ran, are run again for ever."""


def run(seed: int, steps: int) -> Counter[str]:
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}, {steps} steps")
        raise
    return simulation.counts


@pytest.mark.parametrize("first", range(0, len(SHORT), SHORT_AT_ONCE))
def test_promises_hold_whoever_dies_and_when(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in SHORT[first : first + SHORT_AT_ONCE]:
        counts += run(seed, SHORT_STEPS[seed % len(SHORT_STEPS)])
    for event in EVENTS:
        assert counts[event] > 10, f"the runs are too tame: {counts}"


def test_promises_hold_for_long() -> None:
    counts = sum((run(seed, LONG_STEPS) for seed in LONG), Counter())
    for event in (*EVENTS, *LONG_EVENTS):
        assert counts[event] > 5, f"the runs are too tame: {counts}"


@pytest.mark.parametrize(("seed", "steps"), SEEDS_THAT_FAILED)
def test_seeds_that_once_failed(seed: int, steps: int) -> None:
    run(seed, steps)


def test_a_seed_decides_everything() -> None:
    assert run(7, 20) == run(7, 20)
