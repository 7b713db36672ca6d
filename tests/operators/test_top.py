from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.exchange import split_by_worker
from millstream.operators.operator import ChangeMode, StateSnapshot
from millstream.operators.top import TopConfig
from millstream.runtime.graph import key_groups_of_worker
from tests.operators.change_kit import Held, Row, changelogs, plain, rows_of, weighted
from tests.operators.kit import Driven, split_at

SCHEMA = pa.schema({"key": pa.string(), "n": pa.int16(), "x": pa.float64(), "at": pa.int64()})
ROW = st.tuples(
    st.none() | st.sampled_from(["a", "b"]),
    st.none() | st.integers(-2, 2),
    st.none() | st.sampled_from([-math.inf, -0.0, 0.0, 1.5, math.nan]),
    st.integers(0, 3),
)


def config(
    keys: tuple[str, ...],
    limit: int,
    *,
    ascending: bool,
    takes_changes: bool,
    ties: bool = False,
    rank: str | None = None,
) -> TopConfig:
    by, then = ("n", "x"), ("at",)
    return TopConfig(SCHEMA, keys, by, limit, ascending, then, takes_changes, ties, rank)


def place(value: Any, *, ascending: bool) -> tuple[bool, float]:
    """Nulls last; NaN is greater than all."""
    number = 0.0 if value is None else 1e9 if value == "nan" else max(float(value), -1e9)
    return value is None, number if ascending else -number


def order_of(row: Row, *, ascending: bool) -> tuple[Any, ...]:
    """By what a row is ordered."""
    return (*(place(each, ascending=ascending) for each in row[1:3]), row[3])


def is_top(found: list[Row], rows: list[Row], limit: int, *, ascending: bool, ties: bool) -> None:
    """Check that `found` are the best of `rows`, of one key, whatever decides between equals."""

    def order(row: Row) -> tuple[Any, ...]:
        return order_of(row, ascending=ascending)

    wanted = sorted(rows, key=order)[:limit]
    if ties:
        wanted = [
            each for each in sorted(rows, key=order) if order(each)[:-1] <= order(wanted[-1])[:-1]
        ]
    assert len(found) == len(wanted)
    assert sorted(map(order, found)) == list(map(order, wanted))
    rest = list(rows)
    for each in found:
        rest.remove(each)  # raises where it is not there


def by_key(rows: list[Row], keys: tuple[str, ...]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[0] if keys else None, []).append(row)
    return groups


def check(held: Held, rows: list[Row], asked: TopConfig) -> None:
    found, given_rows = (
        by_key([tuple(map(plain, each)) for each in some], asked.key_columns)
        for some in (held.sorted(), rows)
    )
    assert found.keys() == given_rows.keys()
    for key, some in found.items():
        if asked.rank is not None:
            # In the order of their ranks they are in order.
            some.sort(key=lambda row: row[-1])
            assert [row[-1] for row in some] == list(range(1, len(some) + 1))
            some = [row[:-1] for row in some]  # noqa: PLW2901  # as without ranks
            orders = [order_of(row, ascending=asked.ascending) for row in some]
            assert orders == sorted(orders)
        is_top(some, given_rows[key], asked.limit, ascending=asked.ascending, ties=asked.ties)


@pytest.mark.parametrize("takes_changes", [False, True])
@settings(max_examples=50)
@given(
    changes=changelogs(ROW),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    keys=st.sampled_from([(), ("key",)]),
    limit=st.integers(1, 5),
    ascending=st.booleans(),
    ties=st.booleans(),
    rank=st.sampled_from([None, "rank"]),
)
def test_the_best_rows_of_each_key_hold_after_every_batch(
    takes_changes: bool,
    changes: list[tuple[Row, int]],
    cuts: list[int],
    keys: tuple[str, ...],
    limit: int,
    ascending: bool,
    ties: bool,
    rank: str | None,
) -> None:
    if not takes_changes:
        changes = [(each, 1) for each, _ in changes]
    asked = config(
        keys, limit, ascending=ascending, takes_changes=takes_changes, ties=ties, rank=rank
    )
    driven, held, there = Driven(asked.build()), Held(), Held()
    batch = weighted([each for each, _ in changes], [weight for _, weight in changes], SCHEMA)
    for piece in split_at(batch, cuts):
        driven.batch(piece)
        held.apply(driven.batches.pop(0, []))
        there.apply([piece])
        check(held, list(there.rows.elements()), asked)
    assert driven.operator.counters.state_keys == len(by_key(there.sorted(), keys))


@settings(max_examples=50)
@given(rows=st.lists(ROW, max_size=30), order=st.randoms(), limit=st.integers(1, 4))
def test_equal_rows_are_chosen_between_whatever_comes_first(
    rows: list[Row], order: Any, limit: int
) -> None:
    asked = config(("key",), limit, ascending=False, takes_changes=False)
    found = []
    for _ in range(2):
        driven, held = Driven(asked.build()), Held()
        driven.batch(weighted(rows, [1] * len(rows), SCHEMA))
        held.apply(driven.batches.get(0, []))
        found.append(held.sorted())
        rows = order.sample(rows, len(rows))
    assert found[0] == found[1]


@settings(max_examples=50)
@given(
    changes=changelogs(ROW),
    at=st.integers(0, 40),
    again=st.integers(0, 40),
    parallelism=st.sampled_from([1, 2, 4]),
    takes_changes=st.booleans(),
    ties=st.booleans(),
    rank=st.sampled_from([None, "rank"]),
)
def test_state_moves_to_another_parallelism(
    changes: list[tuple[Row, int]],
    at: int,
    again: int,
    parallelism: int,
    takes_changes: bool,
    ties: bool,
    rank: str | None,
) -> None:
    if not takes_changes:
        changes = [(each, 1) for each, _ in changes]
    asked = config(("key",), 2, ascending=True, takes_changes=takes_changes, ties=ties, rank=rank)
    parts = [
        weighted([each for each, _ in some], [weight for _, weight in some], SCHEMA)
        for some in (changes[:at], changes[at : at + again], changes[at + again :])
    ]
    driven, held, there = Driven(asked.build()), Held(), Held()
    there.apply(parts)
    snapshots: list[StateSnapshot] = []
    for index, part in enumerate(parts[:2]):
        driven.batch(part)
        snapshots.append(driven.snapshot(index or None, index + 1))
    held.apply(driven.batches.get(0, []))
    for index, part in enumerate(split_by_worker(parts[2], ("key",), parallelism)):
        moved = Driven(asked.build())
        moved.operator.restore(snapshots, key_groups_of_worker(index, parallelism))
        moved.batch(part)
        held.apply(moved.batches.get(0, []))
    check(held, list(there.rows.elements()), asked)


def test_rows_that_nobody_needs_are_forgotten() -> None:
    schema = pa.schema({"n": pa.int64(), "text": pa.string()})
    driven = Driven(TopConfig(schema, (), ("n",), 2).build())
    sizes = []
    for first in range(0, 40_000, 1_000):
        numbers = pa.array(range(first, first + 1_000))
        driven.batch(pa.record_batch([numbers, numbers.cast(pa.string())], schema=schema))
        sizes.append(driven.operator.counters.state_bytes)
    assert max(sizes) < 200_000
    assert rows_of(driven.batches[0][-1]) == [
        (38_999, "38999"), (38_998, "38998"), (39_999, "39999"), (39_998, "39998"),
    ]  # fmt: skip


def test_what_it_takes_and_gives() -> None:
    facts = config(("key",), 3, ascending=True, takes_changes=False)
    changes = config((), 3, ascending=False, takes_changes=True)
    assert (facts.consumes, facts.produces) == (ChangeMode.APPEND, ChangeMode.CHANGELOG)
    assert changes.consumes is ChangeMode.CHANGELOG
    assert facts.describe() == "top 3, least n, x first, by key"
    assert changes.describe() == "top 3, greatest n, x first"
