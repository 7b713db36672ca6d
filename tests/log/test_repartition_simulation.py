"""Seeded runs around repartitions: no row lost or twice, those of a key in their order."""

from __future__ import annotations

from collections import Counter

from tests.log.repartition_simulation import Simulation

SEEDS = range(16)
STEPS = 80


def run(seed: int, steps: int = STEPS) -> Counter[str]:
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}, {steps} steps")
        raise
    return simulation.counts


def test_promises_hold_whoever_dies_and_when() -> None:
    counts = sum((run(seed) for seed in SEEDS), Counter[str]())
    for event in ("deaths", "power cuts", "interrupts", "repartitions", "generations", "rows"):
        assert counts[event] > 10, f"the runs are too tame: {counts}"
