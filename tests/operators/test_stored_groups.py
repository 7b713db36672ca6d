"""Running aggregates by sets, lists and sketches: changes add up to the model's results."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.operator import StateSnapshot
from millstream.operators.stored_groups import StoredGroupsConfig
from tests.operators.kit import ALL_GROUPS, Driven, split_at
from tests.operators.test_window_changes import apply
from tests.operators.window_model import (
    SCHEMA,
    STORED,
    Row,
    batch_of,
    check_results,
    computed,
    plain,
    rows_of,
)


@settings(max_examples=25)
@given(
    keys=st.sampled_from([(), ("text",), ("text", "number")]),
    batches=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 12)), max_size=5),
    cuts=st.lists(st.integers(1, 11), max_size=2),
    restores=st.booleans(),
)
def test_changes_add_up_to_the_results_of_all_rows(
    keys: tuple[str, ...], batches: list[tuple[int, int]], cuts: list[int], restores: bool
) -> None:
    config = StoredGroupsConfig(SCHEMA, keys, STORED, "time")
    driven, held, sources = Driven(config.build()), dict[str, Row](), list[Row]()
    chain: list[StateSnapshot] = []
    for number, (seed, count) in enumerate(batches, start=1):
        rows = rows_of(seed, count, range(-50, 100), stamped=False)
        sources += rows
        for piece in split_at(batch_of(rows), cuts):
            driven.batch(piece)
        apply(held, [row for batch in driven.batches.pop(0, []) for row in plain(batch)])
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in sources:
            groups.setdefault(tuple(row[name] for name in keys), []).append(row)
        expected = [
            dict(zip(keys, key, strict=True))
            | {each.name: computed(each, members) for each in STORED}
            for key, members in groups.items()
        ]
        check_results(list(held.values()), expected, sources)
        chain.append(driven.snapshot(number - 1 if number > 1 and not restores else None, number))
        if restores:
            chain = chain[-1:]
            driven = Driven(config.build())
            driven.operator.restore(chain, ALL_GROUPS)
