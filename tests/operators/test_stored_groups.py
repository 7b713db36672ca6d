"""Running aggregates by sets, lists, sketches and moments: of facts, and of changes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.aggregate import Aggregate
from millstream.operators.exchange import split_by_worker
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.group_combine import GroupCombineConfig
from millstream.operators.operator import StateSnapshot
from millstream.operators.weights import WEIGHT_FIELD
from millstream.runtime.graph import key_groups_of_worker
from tests.operators.kit import Driven, split_at
from tests.operators.test_window_changes import apply
from tests.operators.window_model import (
    AGGREGATES,
    SCHEMA,
    SQUARES,
    STORED,
    Row,
    batch_of,
    check_results,
    computed,
    plain,
    rows_of,
)

SUBTRACTED = replace(SQUARES, retract=lambda state, value: state - value * value)
OF_CHANGES = tuple(each for each in (*STORED, *AGGREGATES[:12]) if each.argument != "tags")
"""What changes can be aggregated by: lists cannot be told apart."""


class Workers:
    """Some workers, to which rows cross as they are or combined."""

    def __init__(self, config: GroupAggregateConfig, parallelism: int, *, combines: bool) -> None:
        self.config, self.parallelism, self.combines = config, parallelism, combines
        merging = replace(config, partial=combines)
        self.combine = Driven(GroupCombineConfig(config).build())
        self.every = [Driven(merging.build()) for _ in range(parallelism)]
        self.chain: list[list[StateSnapshot]] = [[] for _ in range(parallelism)]

    def batch(self, batch: pa.RecordBatch) -> list[Row]:
        """Give a batch to the aggregate; return the changes."""
        if self.combines and batch.num_rows:
            self.combine.batch(batch)
            (batch,) = self.combine.batches.pop(0)
        parts = split_by_worker(batch, self.config.key_columns, self.parallelism)
        found: list[Row] = []
        for each, part in zip(self.every, parts, strict=True):
            each.batch(part)
            found += [row for one in each.batches.pop(0, []) for row in plain(one)]
        return found

    def snapshot(self, number: int) -> None:
        for each, chain in zip(self.every, self.chain, strict=True):
            chain.append(each.snapshot(number - 1 if chain else None, number))

    def moved(self, parallelism: int) -> Workers:
        """These workers' state in others."""
        found = Workers(self.config, parallelism, combines=self.combines)
        snapshots = [each for chain in self.chain for each in chain]
        for index, each in enumerate(found.every):
            each.operator.restore(snapshots, key_groups_of_worker(index, parallelism))
        return found


def changes_of(chosen: random.Random, held: list[Row], new: list[Row]) -> list[tuple[Row, int]]:
    """New rows, some of them several times, and between them some that are taken back."""
    changes = []
    for row in new:
        while held and chosen.random() < 0.4:
            changes.append((held.pop(chosen.randrange(len(held))), -1))
        weight = chosen.choice((1, 1, 3))
        held += [row] * weight
        changes.append((row, weight))
    return changes


@pytest.mark.parametrize("takes_changes", [False, True])
@settings(max_examples=8)
@given(
    keys=st.sampled_from([("text",), (), ("text", "number")]),
    batches=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 12)), max_size=3),
    cuts=st.lists(st.integers(1, 11), max_size=2),
    parallelism=st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=3),
    restores=st.booleans(),
    combines=st.booleans(),
)
def test_changes_add_up_to_the_results_of_all_rows(
    takes_changes: bool,
    keys: tuple[str, ...],
    batches: list[tuple[int, int]],
    cuts: list[int],
    parallelism: list[int],
    restores: bool,
    combines: bool,
) -> None:
    aggregates = OF_CHANGES if takes_changes else STORED
    if not combines:
        # What takes back need not be able to from the state before any value, where it would be
        # combined.
        own = SUBTRACTED if takes_changes else SQUARES
        aggregates = (*aggregates, Aggregate("user_subtracted", "user", "i8", user=own))
    config = GroupAggregateConfig(SCHEMA, keys, aggregates, takes_changes, time_column="time")
    workers = Workers(config, parallelism[0], combines=combines)
    held, sources = dict[str, Row](), list[Row]()
    for number, (seed, count) in enumerate(batches, start=1):
        rows = rows_of(seed, count, range(-50, 100), stamped=False)
        changes = [(each, 1) for each in rows]
        if takes_changes:
            # Rows of changes have no position, so that no two are of one time here.
            chosen = random.Random(seed)
            times = chosen.sample(range(number, 1_000, 5), count)
            rows = [row | {"time": time} for row, time in zip(rows, times, strict=True)]
            changes = changes_of(chosen, sources, rows)
        else:
            sources += rows
        batch = batch_of([each for each, _ in changes])
        if takes_changes:
            weights = pa.array([weight for _, weight in changes], pa.int64())
            batch = batch.append_column(WEIGHT_FIELD, weights)
        for piece in split_at(batch, cuts):
            apply(held, workers.batch(piece))
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in sources:
            groups.setdefault(tuple(row[name] for name in keys), []).append(row)
        expected = [
            dict(zip(keys, key, strict=True))
            | {each.name: computed(each, members) for each in aggregates}
            for key, members in groups.items()
        ]
        check_results(list(held.values()), expected, sources)
        workers.snapshot(number)
        if restores:
            workers = workers.moved(parallelism[number - 1])
