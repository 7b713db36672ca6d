"""Hundreds of seeded runs of a group: nobody owns what another does, no commit is lost or late."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.log.groups.simulation import Simulation

SEEDS = range(27)
STEPS = 60
SEEDS_THAT_FAILED = (110,)
"""Seeds that found a bug once are run for ever."""


def run(seed: int, steps: int = STEPS) -> Counter[str]:
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}, {steps} steps")
        raise
    return simulation.counts


@pytest.mark.parametrize("mode", range(3))
def test_promises_hold_whoever_dies_and_when(mode: int) -> None:
    counts = sum((run(seed) for seed in SEEDS if seed % 3 == mode), Counter[str]())
    for event in ("deaths", "power cuts", "interrupts", "stopped", "revoked", "polls"):
        assert counts[event] > 2, f"the runs are too tame: {counts}"


@pytest.mark.parametrize("seed", SEEDS_THAT_FAILED)
def test_seeds_that_once_failed(seed: int) -> None:
    run(seed, 80)


def test_a_seed_decides_everything() -> None:
    assert run(7) == run(7)
