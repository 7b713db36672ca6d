"""Hundreds of seeded runs: acknowledged rows stay, once and in order; what was seen stays too."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.log.simulation import Simulation

SEEDS = range(200)
STEPS = 30
SEEDS_THAT_FAILED = ((2039, 50), (1031, 50), (1012, 50), (1065, 50), (1070, 40), (1194, 40))
"""Seeds that once found a bug, and how long they ran, are run again for ever."""


def run(seed: int, steps: int = STEPS) -> Counter[str]:
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}, {steps} steps")
        raise
    return Counter(simulation.counts)


@pytest.mark.parametrize("first", range(0, len(SEEDS), 50))
def test_promises_hold_whoever_dies_and_when(first: int) -> None:
    counts = sum((run(seed) for seed in SEEDS[first : first + 50]), Counter())
    for event in ("deaths", "power cuts", "commits", "fenced", "interrupts", "waits", "rows kept"):
        assert counts[event] > 10, f"the runs are too tame: {counts}"


@pytest.mark.parametrize(("seed", "steps"), SEEDS_THAT_FAILED)
def test_seeds_that_once_failed(seed: int, steps: int) -> None:
    run(seed, steps)


def test_a_seed_decides_everything() -> None:
    assert run(7) == run(7)
