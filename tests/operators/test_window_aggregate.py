"""Windowed aggregates, against a model row by row, DuckDB, and themselves uninterrupted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import JobError, OptionError
from millstream.log.key_hash import key_groups
from millstream.operators import window_aggregate
from millstream.operators.aggregate import Aggregate
from millstream.operators.operator import ChangeMode, StateSnapshot
from millstream.operators.window_aggregate import WindowAggregate, WindowAggregateConfig
from millstream.runtime.graph import key_groups_of_worker
from millstream.windows.tumbling import Tumbling
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN
from tests.examples import examples
from tests.operators.kit import ALL_GROUPS, TIME, Driven, split_at, stored
from tests.operators.window_model import (
    AGGREGATES,
    SCHEMA,
    STORED,
    Row,
    WindowModel,
    batch_of,
    check_results,
    config_of,
    plain,
    rows_of,
)

KEYS: list[tuple[str, ...]] = [(), ("text",), ("number",), ("text", "number"), ("f64",), ("flag",)]
SIZES = st.sampled_from([1, 7, 10, 60])
SIZES_SLIDES = st.sampled_from(
    [
        (1, None),
        (7, None),
        (10, None),
        (60, None),
        (6, 4),
        (10, 5),
        (60, 20),
        (60, 45),
        (9, 9),
        (3, 0),
        (15, 0),
    ]
)


class Workers:
    """Operators that share the key groups, with their checkpoints."""

    def __init__(self, config: WindowAggregateConfig, parallelism: int) -> None:
        self.config = config
        self.checkpoint = 0
        self.chain: list[tuple[int, StateSnapshot]] = []
        self._start(parallelism)

    def _start(self, parallelism: int) -> None:
        self.drivens = [Driven(self.config.build()) for _ in range(parallelism)]
        self.since: int | None = None

    def batch(self, batch: pa.RecordBatch) -> None:
        keys = [batch.column(name) for name in self.config.key_columns]
        groups = key_groups(keys) if keys else np.zeros(batch.num_rows, dtype=np.int32)
        for index, driven in enumerate(self.drivens):
            own = key_groups_of_worker(index, len(self.drivens))
            mine = (groups >= own.start) & (groups < own.stop)
            driven.batch(batch.filter(pa.array(mine)))

    def take_checkpoint(self) -> None:
        """As the runtime does it: a whole part makes a worker's earlier ones needless."""
        self.checkpoint += 1
        if self.since is None:
            self.chain = []
        for index, driven in enumerate(self.drivens):
            snapshot = driven.snapshot(self.since, self.checkpoint)
            if snapshot.full:
                self.chain = [each for each in self.chain if each[0] != index]
            self.chain.append((index, snapshot))
        self.since = self.checkpoint

    def restart(self, parallelism: int) -> None:
        """Go on from the last checkpoint with another number of workers."""
        assert not self.rows(0)
        self._start(parallelism)
        for index, driven in enumerate(self.drivens):
            own = key_groups_of_worker(index, parallelism)
            driven.operator.restore([stored(each) for _, each in self.chain], own)

    def watermark(self, watermark_us: int) -> None:
        for driven in self.drivens:
            driven.watermark(watermark_us)

    def end(self) -> None:
        for driven in self.drivens:
            driven.end()

    def rows(self, port: int) -> list[Row]:
        return [r for d in self.drivens for b in d.batches.get(port, []) for r in plain(b)]

    def take(self, port: int) -> list[Row]:
        """What came out since the last call."""
        rows = self.rows(port)
        for driven in self.drivens:
            driven.batches.pop(port, None)
        return rows


steps = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.tuples(st.integers(0, 10**6), st.integers(0, 12))),
        st.tuples(st.just("unstamped"), st.tuples(st.integers(0, 10**6), st.integers(0, 5))),
        st.tuples(st.just("watermark"), st.integers(-60, 120)),
        st.tuples(st.just("checkpoint"), st.none()),
        st.tuples(st.just("restart"), st.integers(1, 4)),
        st.tuples(st.just("end"), st.none()),
    ),
    max_size=14,
)


@pytest.mark.parametrize("kept", ["fields", "stores"])
@settings(max_examples=examples(30))
@given(
    keys=st.sampled_from(KEYS),
    size_slide=SIZES_SLIDES,
    offset=st.integers(-30, 30),
    allowed=st.sampled_from([0, 0, 5, 30]),
    parallelism=st.integers(1, 3),
    steps=steps,
    cuts=st.lists(st.integers(1, 11), max_size=2),
)
def test_results_are_those_of_the_model_whatever_interrupts(
    kept: str,
    keys: tuple[str, ...],
    size_slide: tuple[int, int | None],
    offset: int,
    allowed: int,
    parallelism: int,
    steps: list[tuple[str, Any]],
    cuts: list[int],
) -> None:
    size, slide = size_slide
    aggregates = AGGREGATES if kept == "fields" else STORED
    config = config_of(keys, size, offset, allowed, slide, aggregates)
    workers, model = Workers(config, parallelism), WindowModel(config)
    sources: list[Row] = []
    for action, argument in [*steps, ("end", None)]:
        late: list[Row] = []
        results: list[Row] = []
        if action in {"rows", "unstamped"}:
            seed, count = argument
            rows = rows_of(seed, count, range(-50, 100), stamped=action == "rows")
            sources += rows
            late = model.rows(rows)
            for piece in split_at(batch_of(rows), cuts):
                workers.batch(piece)
        elif action == "watermark":
            # A watermark never goes back, and holds for rows that are not late.
            watermark_us = max(model.watermark_us, argument)
            results = model.watermark(watermark_us)
            workers.watermark(watermark_us)
        elif action == "checkpoint":
            workers.take_checkpoint()
        elif action == "restart":
            workers.take_checkpoint()
            workers.restart(argument)
            results = model.watermark(model.watermark_us)
            workers.watermark(model.watermark_us)
        else:
            results = model.end()
            workers.end()
        check_results(workers.take(0), results, sources)
        check_late(workers.take(1), late)
        if action == "end":
            # What comes behind the end of a run comes in another one.
            workers.take_checkpoint()
            workers.restart(parallelism)
            workers.watermark(model.watermark_us)
    assert sum(each.operator.counters.state_keys for each in workers.drivens) == 0


@settings(max_examples=60)
@given(
    keys=st.sampled_from(KEYS),
    slide=st.sampled_from([None, 5, 10, 0]),
    allowed=st.sampled_from([0, 5]),
    steps=steps.filter(lambda steps: any(action == "restart" for action, _ in steps)),
)
def test_no_window_is_given_out_twice_though_the_watermark_falls_behind(
    keys: tuple[str, ...], slide: int | None, allowed: int, steps: list[tuple[str, Any]]
) -> None:
    # After a restart an idle partition may hold the watermark back for a while.
    workers = Workers(config_of(keys, 10, 0, allowed, slide), 2)
    given_out: list[Row] = []
    watermark_us = WATERMARK_MIN
    for action, argument in [*steps, ("end", None)]:
        if action == "rows":
            seed, count = argument
            workers.batch(batch_of(rows_of(seed, count, range(-50, 100))))
        elif action == "watermark":
            watermark_us = max(watermark_us, argument)
            workers.watermark(watermark_us)
        elif action == "restart":
            workers.take_checkpoint()
            workers.restart(argument)
            watermark_us = WATERMARK_MIN
        elif action == "checkpoint":
            workers.take_checkpoint()
        elif action == "end":
            workers.end()
        given_out += workers.take(0)
        workers.take(1)
    names = [*keys, "window_start"]
    windows = [repr([row[name] for name in names]) for row in given_out]
    assert len(set(windows)) == len(windows)


def check_late(found: list[Row], expected: Sequence[Row]) -> None:
    """Late rows come as they were, with their stamps: an operator behind decides anew."""
    ours = plain(batch_of(expected)) if expected else []
    assert sorted(map(repr, found)) == sorted(map(repr, ours))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_any_split_into_batches_gives_the_same_rows(seed: int, cuts: list[int]) -> None:
    rows = rows_of(seed, 60, range(-50, 100))
    whole, split = (Driven(config_of(("text",), 10).build()) for _ in range(2))
    whole.batch(batch_of(rows))
    for piece in split_at(batch_of(rows), cuts):
        split.batch(piece)
    for driven in (whole, split):
        driven.watermark(40)
        driven.end()
    got, wanted = ([r for b in d.batches[0] for r in plain(b)] for d in (split, whole))
    # Float sums may differ in the last digits, everything else not at all.
    check_results(got, wanted, rows)
    assert repr(split.rows(1)) == repr(whole.rows(1))


def test_totals_agree_with_duckdb() -> None:
    rows = [{**row, "_stamp": None} for row in rows_of(1, 5_000, range(-5_000, 5_000))]
    for row in rows:
        # DuckDB's sums of floats are plain, so only ones that are exact are compared.
        row["f64"] = None if row["f64"] is None else float(row["time"] % 7)
        row["f32"] = None if row["f32"] is None else float(row["time"] % 5)
    config = config_of(("text", "number"), 1_000)
    driven = Driven(config.build())
    for piece in split_at(batch_of(rows), [777, 778, 3_000]):
        driven.batch(piece)
    driven.end()
    table = pa.Table.from_batches(driven.batches[0])
    times = pa.array([row["time"] for row in rows])
    source = pa.Table.from_batches([batch_of(rows)]).set_column(2, "time", times)
    columns = []
    for each in config.aggregates:
        what = {"mean": "avg"}.get(each.function, each.function)
        argument = f'"{each.argument}"' if each.argument else "*"
        cast = f"CAST({what}({argument}) AS DOUBLE)" if what == "avg" else f"{what}({argument})"
        columns.append(f'{cast} AS "{each.name}"')
    with duckdb.connect() as connection:
        connection.register("source", source)
        expected = connection.sql(
            "SELECT text, number, CAST(floor(time / 1000) * 1000 AS BIGINT) AS window_start, "
            f"{', '.join(columns)} FROM source GROUP BY ALL"
        ).to_arrow_table()
    # DuckDB has intervals of months and days in the place of durations.
    names = [n for n in table.schema.names if n != "window_end" and not n.endswith("wait")]
    ours = [row for batch in table.select(names).to_batches() for row in plain(batch)]
    theirs = expected.select(names).to_pylist()

    def order(row: Row) -> str:
        return repr((row["text"], row["number"], row["window_start"]))

    assert len(ours) == len(theirs)
    for got, wanted in zip(sorted(ours, key=order), sorted(theirs, key=order), strict=True):
        for name in names:
            if isinstance(got[name], float):
                assert math.isclose(got[name], wanted[name], rel_tol=1e-12)
            else:
                assert got[name] == wanted[name], name


INT = pa.int64()


def small(function: str, type_: pa.DataType, values: Sequence[Any], *, stop: bool = True) -> Driven:
    """An aggregate over values in one window."""
    schema = pa.schema({"time": TIME, "value": type_})
    aggregate = Aggregate("result", function, "value")  # type: ignore[arg-type]  # a parameter
    driven = Driven(WindowAggregateConfig(schema, (), "time", Tumbling(100), (aggregate,)).build())
    times = pa.array([0] * len(values), TIME)
    driven.batch(pa.record_batch({"time": times, "value": pa.array(values, type_)}))
    if stop:
        driven.end()
    return driven


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.int64(), [2**63 - 1, 1]),
        (pa.int64(), [-(2**63), -1]),
        (pa.uint64(), [2**63]),
        (pa.uint64(), [2**64 - 1, 2**64 - 1]),
    ],
    ids=str,
)
def test_a_sum_beyond_int64_is_an_error_that_says_how_large_it_is(
    type_: pa.DataType, values: list[int]
) -> None:
    driven = small("sum", type_, values, stop=False)
    with pytest.raises(JobError, match=f"sum 'result' of 'value' leaves .* int64: {sum(values)};"):
        driven.end()


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30))
def test_sums_on_the_way_may_be_beyond_int64(values: list[int]) -> None:
    while abs(rest := -sum(values)) > 2**62:
        values.append(max(-(2**63), min(2**63 - 1, rest)))
    assert small("sum", pa.int64(), values).rows()[0]["result"] == sum(values)


@given(values=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=10))
def test_means_of_large_integers_are_exact(values: list[int]) -> None:
    found = small("mean", pa.uint64(), values).rows()[0]["result"]
    assert isinstance(found, float)
    assert math.isclose(found, sum(values) / len(values), rel_tol=1e-15)


def test_float_sums_keep_small_parts_beside_large_ones() -> None:
    values = [1e16, 1.0, -1e16, 1.0] * 1_000
    assert small("sum", pa.float64(), values).rows()[0]["result"] == 2_000.0
    assert small("mean", pa.float64(), values).rows()[0]["result"] == 0.5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([math.inf, 1.0], math.inf),
        ([1e308, 1e308, 1.0], math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 1.0], math.nan),
    ],
)
def test_float_sums_may_be_infinite(values: list[float], expected: float) -> None:
    assert repr(small("sum", pa.float64(), values).rows()[0]["result"]) == repr(expected)


def test_large_unsigned_integers_are_greater_than_small_ones() -> None:
    values = [2**63, 1, 2**64 - 1, None, 2**63 - 1]
    for function, expected in (("min", 1), ("max", 2**64 - 1)):
        assert small(function, pa.uint64(), values).rows()[0]["result"] == expected


def test_nan_is_greater_than_all() -> None:
    values = [1.0, math.nan, math.inf, None, -1.0]
    assert small("min", pa.float64(), values).rows()[0]["result"] == -1.0
    assert math.isnan(small("max", pa.float64(), values).rows()[0]["result"])  # type: ignore[arg-type]  # a float
    assert math.isnan(small("min", pa.float64(), [math.nan, None]).rows()[0]["result"])  # type: ignore[arg-type]  # a float


def test_without_values_only_a_count_is_known() -> None:
    for function, expected in (("count", 0), ("sum", None), ("mean", None), ("max", None)):
        assert small(function, INT, [None, None]).rows()[0]["result"] == expected


def test_a_row_without_time_names_the_row_and_the_remedy() -> None:
    driven = Driven(config_of((), 10).build())
    batch = batch_of(rows_of(1, 3, range(10)))
    times = pa.array([1, None, 2], TIME)
    with pytest.raises(JobError, match=r"has no event time: column 'time' is null.*i64"):
        driven.batch(batch.set_column(2, "time", times))


@pytest.mark.parametrize("time_us", [WATERMARK_MIN, WATERMARK_MIN + 9, WATERMARK_MAX])
def test_a_time_at_the_end_of_int64_is_refused(time_us: int) -> None:
    driven = Driven(config_of((), 10).build())
    row = {**rows_of(1, 1, range(10))[0], "time": time_us}
    with pytest.raises(JobError, match=f"'time' is {time_us} microseconds"):
        driven.batch(batch_of([row]))


def test_windows_near_the_ends_of_int64_open_and_close() -> None:
    driven = Driven(config_of((), 10).build())
    rows = rows_of(1, 2, range(10), stamped=False)
    rows[0]["time"], rows[1]["time"] = WATERMARK_MIN + 10, WATERMARK_MAX - 20
    driven.batch(batch_of(rows))
    for watermark_us, expected in ((5, 0), (30, 1), (WATERMARK_MAX - WATERMARK_MIN, 1)):
        emitted = driven.operator.on_watermark(WATERMARK_MIN + watermark_us)
        assert sum(each.batch.num_rows for each in emitted) == expected


def test_results_come_in_bounded_pieces_between_which_the_operator_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_aggregate, "OUTPUT_ROWS_MAX", 3)
    operator = config_of(("number", "text"), 10).build()
    rows = rows_of(1, 50, range(0, 40), stamped=False)
    assert list(operator.on_batch(0, batch_of(rows))) == []
    pieces = operator.on_watermark(40)
    first = next(pieces)
    before = operator.counters.rows_out
    rest = list(pieces)
    assert before == first.batch.num_rows == 3
    assert all(1 <= each.batch.num_rows <= 3 for each in rest)
    starts = [row["window_start"] for each in (first, *rest) for row in plain(each.batch)]
    assert starts == sorted(starts)
    late = Driven(operator)
    late.batch(batch_of([{**row, "_stamp": 40} for row in rows]))
    assert [batch.num_rows for batch in late.batches[1]][:3] == [3, 3, 3]


def test_a_snapshot_of_changes_says_what_came_changed_and_went() -> None:
    driven = Driven(config_of(("text",), 10).build())

    def put(text: str, time_us: int) -> None:
        row = {**rows_of(1, 1, range(10), stamped=False)[0], "text": text, "time": time_us}
        driven.batch(batch_of([row]))

    def parts(snapshot: StateSnapshot) -> list[tuple[str, int, bool, int]]:
        assert snapshot.rows is not None
        rows = snapshot.rows.to_pylist()
        return [(r["key.text"], r["window_start"], r["_removed"], r["value.rows"]) for r in rows]

    put("a", 0)
    put("b", 10)
    assert parts(driven.snapshot(None, 1)) == [("a", 0, False, 1), ("b", 10, False, 1)]
    put("b", 10)
    put("c", 0)
    driven.watermark(10)
    put("d", 20)
    changes = driven.snapshot(1, 2)
    assert not changes.full
    # "c" came and went in between: nobody needs to know.
    assert sorted(parts(changes)) == [
        ("a", 0, True, 0), ("b", 10, False, 2), ("d", 20, False, 1),
    ]  # fmt: skip
    assert driven.snapshot(2, 3).rows is None
    whole = driven.snapshot(1, 4)  # asked for another checkpoint than the last
    assert whole.full
    assert sorted(parts(whole)) == [("b", 10, False, 2), ("d", 20, False, 1)]


def test_a_worker_restores_its_own_key_groups() -> None:
    driven = Driven(config_of(("text",), 10).build())
    driven.batch(batch_of(rows_of(1, 1, range(10), stamped=False)))
    snapshot = driven.snapshot(None, 1)
    assert snapshot.rows is not None
    group = snapshot.rows.column("_key_group")[0].as_py()
    for groups, keys in (
        (range(group, group + 1), 1),
        (range(0, group), 0),
        (range(group + 1, 4096), 0),
    ):
        again = config_of(("text",), 10).build()
        again.restore([snapshot], groups)
        assert again.counters.state_keys == keys


def test_a_chain_of_changes_is_the_state() -> None:
    driven = Driven(config_of(("text", "number"), 10).build())
    chain = [driven.snapshot(None, 0)]
    for number in range(1, 8):
        driven.batch(
            batch_of(rows_of(number, 20, range(number * 5, number * 5 + 40), stamped=False))
        )
        driven.watermark(number * 10)
        chain.append(driven.snapshot(number - 1, number))
    assert [each.full for each in chain] == [True] + [False] * 7
    again = Driven(config_of(("text", "number"), 10).build())
    again.operator.restore(chain, ALL_GROUPS)
    driven.batches.clear()
    results = [row for each in (driven, again) for row in [each.end()]]
    assert sorted(map(repr, results[0])) == sorted(map(repr, results[1]))
    assert results[0]


def test_the_operator_says_what_it_is() -> None:
    config = config_of(("text",), 10, allowed=5)
    assert config.consumes is config.produces is ChangeMode.APPEND
    assert (config.timed, config.broadcast_state) == (True, False)
    assert config.describe().startswith("aggregate rows = count(), count_text = count(text)")
    assert config.describe().endswith(" by text, tumbling 0:00:00.000010 on time")
    results, late = config.output_schemas
    assert results.names[:3] == ["text", "window_start", "window_end"]
    assert late == SCHEMA
    assert isinstance(config.build(), WindowAggregate)


@pytest.mark.parametrize(("size", "allowed"), [(10, -1), (2**62, 0), (10, 2**62)])
def test_absurd_spans_are_refused(size: int, allowed: int) -> None:
    with pytest.raises(OptionError, match="100,000 years"):
        config_of((), size, allowed=allowed)


def test_counters_count() -> None:
    driven = Driven(config_of(("text",), 10).build())
    driven.batch(batch_of([{**row, "_stamp": 100} for row in rows_of(1, 20, range(80, 110))]))
    driven.end()
    counters = driven.operator.counters
    late, results = len(driven.rows(1)), len(driven.rows(0))
    assert (counters.rows_in, counters.rows_late) == (20, late)
    assert counters.rows_out == late + results
    assert (counters.rows_numba, counters.rows_python) == (20, 0)
    assert counters.state_bytes > 0
