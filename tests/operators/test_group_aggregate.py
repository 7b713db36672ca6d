from __future__ import annotations

import math
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.operators.aggregate import Aggregate
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.group_combine import GroupCombineConfig
from millstream.operators.operator import OUTPUT_ROWS_MAX, ChangeMode, StateSnapshot
from millstream.runtime.graph import key_groups_of_worker
from tests.operators.change_kit import Held, Row, changelogs, rows_of, weighted
from tests.operators.kit import Driven, split_at, stored

SCHEMA = pa.schema({"text": pa.string(), "n": pa.int32(), "big": pa.int64(), "x": pa.float64()})
AGGREGATES = (
    Aggregate("rows", "count", None),
    Aggregate("known", "count", "big"),
    Aggregate("total", "sum", "big"),
    Aggregate("mean", "mean", "x"),
    Aggregate("least", "min", "x"),
    Aggregate("greatest", "max", "big"),
)
SQL = (
    "count(*), count(big), sum(big)::bigint, avg(x), min(x), max(big)"  # in the order of AGGREGATES
)
DUCKDB = duckdb.connect(config={"threads": 1})
KEYS = [(), ("n",), ("text",), ("text", "n")]


def config(keys: tuple[str, ...], *, takes_changes: bool, **options: Any) -> GroupAggregateConfig:
    return GroupAggregateConfig(SCHEMA, keys, AGGREGATES, takes_changes, **options)


def row() -> st.SearchStrategy[Row]:
    return st.tuples(
        st.none() | st.sampled_from(["", "a", "b", "a longer key than eight bytes"]),
        st.none() | st.integers(-1, 2),
        # The sum of all rows stays in int64, whichever of them hold.
        st.none() | st.integers(-3, 3) | st.integers(-(2**56), 2**56),
        # Quarters, so that a mean is the same in any order.
        st.none() | st.integers(-40, 40).map(lambda n: n / 4) | st.sampled_from([math.nan]),
    )


def expected(rows: list[Row], keys: tuple[str, ...]) -> list[Row]:
    """What DuckDB makes of the rows that hold."""
    held = weighted(rows, [1] * len(rows), SCHEMA)
    listed = ", ".join(keys)
    group = f"group by {listed}" if keys else "having count(*) > 0"
    query = f"select {f'{listed}, ' if keys else ''}{SQL} from held {group}"
    DUCKDB.register("held", pa.table(held))
    return sorted(rows_of(DUCKDB.sql(query).to_arrow_table()), key=repr)


def close(found: list[Row], wanted: list[Row]) -> bool:
    assert len(found) == len(wanted)
    return all(
        a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b))
        for one, other in zip(found, wanted, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=50)
@given(
    rows=st.lists(row(), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=2),
    keys=st.sampled_from(KEYS),
)
def test_results_of_facts_are_duckdbs_after_every_batch(
    rows: list[Row], cuts: list[int], keys: tuple[str, ...]
) -> None:
    driven, held = Driven(config(keys, takes_changes=False).build()), Held()
    done = 0
    batch = weighted(rows, [1] * len(rows), SCHEMA).drop_columns(["_weight"])
    for piece in split_at(batch, cuts):
        driven.batch(piece)
        held.apply(driven.batches.pop(0, []))
        done += piece.num_rows
        assert close(held.sorted(), expected(rows[:done], keys))


@settings(max_examples=50)
@given(
    changes=changelogs(row()),
    cuts=st.lists(st.integers(0, 40), max_size=2),
    keys=st.sampled_from(KEYS),
)
def test_results_of_changes_are_duckdbs_of_the_rows_that_hold(
    changes: list[tuple[Row, int]], cuts: list[int], keys: tuple[str, ...]
) -> None:
    driven, held, there = Driven(config(keys, takes_changes=True).build()), Held(), Held()
    batch = weighted([each for each, _ in changes], [weight for _, weight in changes], SCHEMA)
    for piece in split_at(batch, cuts):
        driven.batch(piece)
        held.apply(driven.batches.pop(0, []))
        there.apply([piece])
        wanted = expected([_as_given(each) for each in there.rows.elements()], keys)
        assert close(held.sorted(), wanted)
    assert driven.operator.counters.state_keys == len(held.rows)


def _as_given(row: Row) -> Row:
    return tuple(math.nan if each == "nan" else each for each in row)


@settings(max_examples=50)
@given(
    changes=changelogs(row()),
    keys=st.sampled_from([("n",), ("text", "n")]),
    at=st.integers(0, 40),
    again=st.integers(0, 40),
    parallelism=st.sampled_from([(1, 2), (2, 1), (2, 4), (4, 2)]),
    takes_changes=st.booleans(),
)
def test_state_moves_to_another_parallelism(
    changes: list[tuple[Row, int]],
    keys: tuple[str, ...],
    at: int,
    again: int,
    parallelism: tuple[int, int],
    takes_changes: bool,
) -> None:
    if not takes_changes:
        changes = [(each, 1) for each, _ in changes]
    asked = config(keys, takes_changes=takes_changes)
    whole, held = Driven(asked.build()), Held()
    parts = [
        weighted([each for each, _ in some], [weight for _, weight in some], SCHEMA)
        for some in (changes[:at], changes[at : at + again], changes[at + again :])
    ]
    snapshots: list[StateSnapshot] = []
    before, after = parallelism
    workers = [Driven(asked.build()) for _ in range(before)]
    for index, part in enumerate(parts[:2]):
        for worker, rows in zip(workers, shared(part, keys, before), strict=True):
            worker.batch(rows)
            held.apply(worker.batches.pop(0, []))
            snapshots.append(worker.snapshot(index or None, index + 1))
    # Oldest first; those of one worker begin with its full one.
    moved = [Driven(asked.build()) for _ in range(after)]
    for index, worker in enumerate(moved):
        worker.operator.restore(
            [stored(each) for each in snapshots], key_groups_of_worker(index, after)
        )
    for worker, rows in zip(moved, shared(parts[2], keys, after), strict=True):
        worker.batch(rows)
        held.apply(worker.batches.pop(0, []))
    one = Held()
    for part in parts:
        whole.batch(part)
        one.apply(whole.batches.pop(0, []))
    assert close(held.sorted(), one.sorted())
    assert sum(each.operator.counters.state_keys for each in moved) == len(one.rows)


def shared(batch: pa.RecordBatch, keys: tuple[str, ...], parallelism: int) -> list[pa.RecordBatch]:
    """The rows of each worker, as an exchange sends them."""
    from millstream.operators.exchange import split_by_worker

    return list(split_by_worker(batch, keys, parallelism))


@settings(max_examples=50)
@given(
    changes=changelogs(row()),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    keys=st.sampled_from(KEYS),
    takes_changes=st.booleans(),
)
def test_combined_rows_give_what_rows_give(
    changes: list[tuple[Row, int]], cuts: list[int], keys: tuple[str, ...], takes_changes: bool
) -> None:
    aggregates = AGGREGATES[:4] if takes_changes else AGGREGATES
    if not takes_changes:
        changes = [(each, 1) for each, _ in changes]
    asked = GroupAggregateConfig(SCHEMA, keys, aggregates, takes_changes)
    merged = GroupAggregateConfig(SCHEMA, keys, aggregates, takes_changes, partial=True)
    one, combine, other = (
        Driven(each.build()) for each in (asked, GroupCombineConfig(asked), merged)
    )
    batch = weighted([each for each, _ in changes], [weight for _, weight in changes], SCHEMA)
    held, of_merged = Held(), Held()
    for piece in split_at(batch, cuts):
        one.batch(piece)
        combine.batch(piece)
        for each in combine.batches.pop(0, []):
            assert each.num_rows <= piece.num_rows
            other.batch(each)
    held.apply(one.batches.get(0, []))
    of_merged.apply(other.batches.get(0, []))
    assert close(of_merged.sorted(), held.sorted())


def test_sums_of_floats_leave_no_trace_of_what_was_taken_back() -> None:
    asked = GroupAggregateConfig(SCHEMA, (), (Aggregate("total", "sum", "x"),), True)
    driven, held = Driven(asked.build()), Held()
    values = [1e300, 1e290, 1.5, math.inf, -math.inf, math.nan, 1e-5, 3.0]
    rows: list[Row] = [(None, None, None, each) for each in values]
    driven.batch(weighted(rows, [1] * len(rows), SCHEMA))
    for gone in (5, 4, 3, 0, 1):
        driven.batch(weighted([rows[gone]], [-1], SCHEMA))
    held.apply(driven.batches[0])
    assert held.sorted() == [(math.fsum([1.5, 1e-5, 3.0]),)]


@settings(max_examples=50)
@given(
    numbers=st.lists(
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e25, max_value=1e25)
    ),
    gone=st.data(),
)
def test_sums_of_floats_are_exact(numbers: list[float], gone: st.DataObject) -> None:
    numbers = [each if abs(each) > 1e-15 else 0.0 for each in numbers]
    kept = gone.draw(st.sets(st.integers(0, max(len(numbers) - 1, 0))))
    asked = GroupAggregateConfig(SCHEMA, (), (Aggregate("total", "sum", "x"),), True)
    driven, held = Driven(asked.build()), Held()
    rows: list[Row] = [(None, None, None, each) for each in [*numbers, 0.0]]
    driven.batch(weighted(rows, [3] * len(rows), SCHEMA))
    gone_rows = [each for index, each in enumerate(rows[:-1]) if index not in kept]
    driven.batch(weighted(gone_rows, [-3] * len(gone_rows), SCHEMA))
    held.apply(driven.batches[0])
    exact = math.fsum(3 * [each for index, each in enumerate(numbers) if index in kept])
    assert len(held.rows) == 1
    assert math.isclose(held.sorted()[0][0], exact, rel_tol=1e-15)


def test_a_key_that_was_gone_before_the_restore_leaves_nothing_to_the_next() -> None:
    driven = Driven(config(("n",), takes_changes=True).build())
    gone: Row = ("", 1, 7, -5.0)
    snapshots = []
    for checkpoint, weight in ((1, 1), (2, -1)):
        driven.batch(weighted([gone], [weight], SCHEMA))
        snapshots.append(driven.snapshot(checkpoint - 1 or None, checkpoint))
    moved = Driven(config(("n",), takes_changes=True).build())
    moved.operator.restore(snapshots, range(4096))
    assert moved.operator.counters.state_keys == 0
    (found,) = moved.batch(weighted([("", 2, 9, 3.0)], [1], SCHEMA))
    assert (found["n"], found["least"], found["greatest"]) == (2, 3.0, 9)


def test_a_result_that_did_not_change_is_not_given_out_again() -> None:
    asked = GroupAggregateConfig(SCHEMA, ("n",), (Aggregate("least", "min", "x"),), False)
    driven = Driven(asked.build())
    assert len(driven.batch(weighted([("", 1, 0, 1.0)], [1], SCHEMA))) == 1
    assert driven.batch(weighted([("", 1, 0, 2.0)], [1], SCHEMA)) == []
    changed = driven.batch(weighted([("", 1, 0, 0.5), ("", 1, 0, 0.25)], [1, 1], SCHEMA))
    assert changed == [
        {"n": 1, "least": 1.0, "_weight": -1},
        {"n": 1, "least": 0.25, "_weight": 1},
    ]


def test_an_old_row_and_its_new_one_are_never_parted() -> None:
    count = OUTPUT_ROWS_MAX // 2 + 7
    batch = pa.record_batch({"n": pa.array(range(count), pa.int32())}).select(["n"])
    rows = pa.RecordBatch.from_arrays(
        [pa.nulls(count, pa.string()), batch.column(0), batch.column(0).cast(pa.int64()),
         pa.nulls(count, pa.float64())],
        schema=SCHEMA,
    )  # fmt: skip
    asked = GroupAggregateConfig(SCHEMA, ("n",), (Aggregate("total", "sum", "big"),), False)
    driven = Driven(asked.build())
    driven.batch(rows)
    driven.batches.clear()
    driven.batch(rows.slice(1))
    pieces = driven.batches[0]
    assert [each.num_rows for each in pieces] == [OUTPUT_ROWS_MAX, 12]
    for each in pieces:
        assert set(each.column("_weight").to_pylist()[0::2]) == {-1}


def test_an_integer_sum_beyond_int64_fails_and_says_which() -> None:
    driven = Driven(config(("n",), takes_changes=True).build())
    rows: list[Row] = [("", 1, 2**62, 0.0)] * 2
    with pytest.raises(JobError, match="the sum 'total' of 'big' leaves the range of int64"):
        driven.batch(weighted(rows, [1, 1], SCHEMA))


def test_what_it_takes_and_gives() -> None:
    facts, changes = config((), takes_changes=False), config(("n",), takes_changes=True)
    assert facts.consumes is ChangeMode.APPEND
    assert changes.consumes is facts.produces is ChangeMode.CHANGELOG
    assert not facts.timed
    assert not facts.broadcast_state
    assert facts.describe().startswith("running aggregates over all rows: rows = count()")
    assert changes.output_schemas[0].names == [
        "n", "rows", "known", "total", "mean", "least", "greatest",
    ]  # fmt: skip
    assert list(changes.build().on_end()) == []
