"""The fused operator: every row and value is what the expressions mean, however it is compiled."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from millstream import jit
from millstream.errors import JobError
from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.fused import Fused, FusedConfig
from millstream.operators.fused_kernels import VARIANTS_MAX
from millstream.operators.operator import OUTPUT_ROWS_MAX, ChangeMode
from tests.operators.expression_model import rows_of, same, value_of
from tests.operators.expression_strategies import (
    COMPARISONS,
    NUMBERS,
    SCHEMA,
    batch_of,
    expressions,
    narrower,
)
from tests.operators.kit import Driven, split_at

TYPES = list({each.type: None for each in SCHEMA})
INT, FLOAT, BOOL = pa.int64(), pa.float64(), pa.bool_()


def column(name: str) -> Column:
    return Column(name, SCHEMA.field(name).type)


def with_hidden(batch: pa.RecordBatch) -> pa.RecordBatch:
    numbers = pa.array(range(batch.num_rows), INT)
    return batch.append_column("_stamp", numbers).append_column("_weight", numbers)


def check(config: FusedConfig, batch: pa.RecordBatch, got: Sequence[pa.RecordBatch]) -> None:
    """Compare what came out for `batch` with the model, hidden columns included."""
    rows = [
        row for row in rows_of(batch) if config.predicate is None or value_of(config.predicate, row)
    ]
    found = [row for each in got for row in rows_of(each)]
    assert len(found) == len(rows)
    for row, out in zip(rows, found, strict=True):
        for name, expression in config.outputs:
            expected = value_of(expression, row)
            assert same(out[name], expected), (expression, row, out[name], expected)
        for name in ("_stamp", "_weight"):
            assert (name in out) == (name in row)
            assert out.get(name) == row.get(name)


configs = st.builds(
    FusedConfig,
    st.just(SCHEMA),
    st.none() | expressions(BOOL),
    st.permutations(TYPES)
    .flatmap(lambda types: st.tuples(*(expressions(each, 2) for each in types[:6])))
    .map(lambda found: tuple((f"out{index}", each) for index, each in enumerate(found))),
)


# Every example compiles kernels of its own. So that they are found in the cache the next time,
# the examples are always the same, and a failing one is shown as it was found.
@settings(
    max_examples=12,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    database=None,
)
@given(config=configs, seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 39), max_size=3))
def test_rows_and_values_are_those_of_the_model(
    config: FusedConfig, seed: int, cuts: list[int]
) -> None:
    operator = Driven(config.build())
    for nulls, hidden in ((None, True), (False, False), (True, True)):
        batch = batch_of(seed, 40, nulls)
        batch = with_hidden(batch) if hidden else batch
        operator.batches.clear()
        for piece in split_at(batch, cuts):
            operator.batch(piece)
        check(config, batch, operator.batches.get(0, []))


@pytest.mark.parametrize("type_", NUMBERS, ids=str)
def test_every_function_of_numbers_is_right_where_things_go_wrong(type_: pa.DataType) -> None:
    name = next(each.name for each in SCHEMA if each.type == type_)
    left, zero = Column(name, type_), Constant(0, type_)
    last = Constant(1 if pat.is_unsigned_integer(type_) else -1, type_)
    # Division by zero and by minus one, and any number by itself.
    right = Call("case", (column("flag"), left, column("mark"), zero, last), type_)
    names = ["add", "subtract", "multiply", "floor_divide", "modulo"]
    outputs = [Call(each, (left, right), type_) for each in names]
    outputs += [Call(each, (left, right), BOOL) for each in COMPARISONS]
    outputs.append(Call("abs", (left,), type_))
    if not pat.is_unsigned_integer(type_):
        outputs.append(Call("negate", (left,), type_))
    for source in narrower(type_):
        small = next(each.name for each in SCHEMA if each.type == source)
        outputs.append(Call("cast", (Column(small, source),), type_))
    operator = fused(*outputs)
    batch = batch_of(7, 400, nulls=True)
    check(operator.config, batch, [each.batch for each in operator.on_batch(0, batch)])


def test_what_the_kernel_makes_of_times_and_floats_is_what_arrow_does() -> None:
    ends = [-(2**63), -(2**63) + 1, -1, 0, 1, 86_399_999_999, 2**63 - 1, None]
    times = [*ends, *np.random.default_rng(3).integers(-(2**62), 2**62, 40).tolist()]
    floats = [-0.0, 0.0, 2.5, -2.5, 1e300, math.inf, -math.inf, math.nan, None]
    columns = {
        each: pa.array([None if x is None else x // scale for x in times], pa.timestamp(each, zone))
        # Arrow itself is wrong about seconds beyond the days that it can count.
        for each, zone, scale in (("s", None, 10**9), ("us", "UTC", 1), ("ns", None, 1))
    }
    columns["float"] = pa.array([*floats, *range(len(times) - len(floats))], FLOAT)
    columns["small"] = columns["float"].cast(pa.float32())
    columns["number"] = pa.array([index % 5 - 2 for index in range(len(times))], pa.int8())
    batch = pa.record_batch(columns)
    fields = {each: Column(each, array.type) for each, array in columns.items()}
    outputs = [
        Call(f"dt.{name}", (fields[unit],), INT)
        for unit in ("s", "us", "ns")
        for name in ("hour", "minute", "second", "weekday")
    ]
    outputs += [Call("dt.date", (fields[unit],), pa.date32()) for unit in ("us", "ns")]
    for every_us, weeks in ((10_000_000, False), (7 * 86_400_000_000, True)):
        options = (("every_us", every_us), ("weeks", weeks))
        outputs.append(Call("dt.truncate", (fields["us"],), fields["us"].type, options))
    for name in ("float", "small"):
        outputs += [Call(each, (fields[name],), fields[name].type) for each in ("floor", "ceil")]
        outputs += [Call(each, (fields[name],), BOOL) for each in ("is_nan", "is_finite")]
    outputs.append(Call("sqrt", (fields["float"],), FLOAT))
    for values in ((1, -2), (1, None), (None,)):
        outputs.append(Call("is_in", (fields["number"],), BOOL, (("values", values),)))
    operator = fused(*outputs, schema=batch.schema)
    (emitted,) = operator.on_batch(0, batch)
    assert operator.counters.rows_arrow == 0
    for output, made in zip(outputs, emitted.batch.columns, strict=True):
        found = rows_of(pa.record_batch({"got": made, "wanted": evaluate(output, batch)}))
        assert all(same(row["got"], row["wanted"]) for row in found), (output, found)


def test_two_conditions_have_three_values_each() -> None:
    flags, marks = ([x for x in (True, False, None) for _ in range(3)], [True, False, None] * 3)
    schema = pa.schema({"flag": BOOL, "mark": BOOL})
    batch = pa.record_batch({"flag": pa.array(flags), "mark": pa.array(marks)})
    pair = (Column("flag", BOOL), Column("mark", BOOL))
    constants: list[tuple[TypedExpression, ...]] = [
        (pair[0], Constant(value, BOOL)) for value in (True, False, None)
    ]
    calls = [Call(name, each, BOOL) for name in ("and", "or") for each in (pair, *constants)]
    operator = fused(*calls, schema=schema)
    check(operator.config, batch, [each.batch for each in operator.on_batch(0, batch)])
    for predicate in calls:
        passed = fused(*pair, predicate=predicate, schema=schema)
        check(passed.config, batch, [each.batch for each in passed.on_batch(0, batch)])


def fused(
    *outputs: TypedExpression, predicate: TypedExpression | None = None, schema: pa.Schema = SCHEMA
) -> Fused:
    named = tuple((f"out{index}", each) for index, each in enumerate(outputs))
    operator = FusedConfig(schema, predicate, named).build()
    assert isinstance(operator, Fused)
    return operator


def greater(name: str, value: object) -> Call:
    return Call("greater", (column(name), Constant(value, SCHEMA.field(name).type)), BOOL)


def test_without_a_filter_columns_pass_as_they_are() -> None:
    batch = batch_of(1, 20, nulls=True)
    operator = fused(column("i64"), column("text"))
    (emitted,) = operator.on_batch(0, batch)
    for index, name in enumerate(("i64", "text")):
        before, after = batch.column(name).buffers()[1], emitted.batch.column(index).buffers()[1]
        assert before.address == after.address
    assert operator.counters.rows_numba == operator.counters.rows_arrow == 0


def test_a_filter_that_all_pass_copies_nothing() -> None:
    schema = pa.schema([pa.field("i64", INT)])
    batch = pa.record_batch({"i64": pa.array([1, 2, 3])})
    operator = fused(column("i64"), predicate=greater("i64", 0), schema=schema)
    (emitted,) = operator.on_batch(0, batch)
    assert emitted.batch.column(0).buffers()[1].address == batch.column(0).buffers()[1].address


def test_what_no_row_passes_emits_nothing() -> None:
    operator = fused(column("i64"), predicate=Constant(False, BOOL))
    assert list(operator.on_batch(0, batch_of(1, 9))) == []
    assert (operator.counters.rows_in, operator.counters.rows_out) == (9, 0)
    assert list(operator.on_batch(0, batch_of(1, 9).slice(0, 0))) == []


@pytest.mark.parametrize("predicate", [Constant(None, BOOL), Constant(True, BOOL), None])
def test_constants_need_no_column(predicate: TypedExpression | None) -> None:
    operator = fused(Constant(7, INT), Constant("x", pa.string()), predicate=predicate)
    got = [row for each in operator.on_batch(0, batch_of(1, 3)) for row in each.batch.to_pylist()]
    passes = predicate is None or predicate == Constant(True, BOOL)
    assert got == [{"out0": 7, "out1": "x"}] * (3 if passes else 0)


def test_large_batches_come_out_in_bounded_pieces() -> None:
    count = 2 * OUTPUT_ROWS_MAX + 5
    schema = pa.schema({"i64": INT})
    batch = pa.record_batch({"i64": pa.array(np.arange(count))})
    shifted = Call("add", (Column("i64", INT), Constant(1, INT)), INT)
    operator = fused(shifted, schema=schema)
    pieces = [each.batch for each in operator.on_batch(0, batch)]
    assert [each.num_rows for each in pieces] == [OUTPUT_ROWS_MAX, OUTPUT_ROWS_MAX, 5]
    numbers = np.concatenate([each.column(0).to_numpy() for each in pieces])
    assert np.array_equal(numbers, np.arange(1, count + 1))


def test_no_set_of_columns_with_nulls_makes_more_than_three_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    load = jit.load_generated

    def count(source: str, name: str) -> object:
        made.append(name)
        return load(source, name)

    monkeypatch.setattr(jit, "load_generated", count)
    names = ["f64", "g64", "i64", "j64"]
    total: TypedExpression = column("f64")
    for name in ("g64", "i64", "j64"):
        total = Call("add", (total, Call("cast", (column(name),), FLOAT)), FLOAT)
    operator = fused(total, predicate=Call("not", (Call("is_null", (total,), BOOL),), BOOL))
    for pattern in range(16):
        batch = batch_of(pattern, 30, nulls=False).select(names)
        for index, name in enumerate(names):
            values = batch.column(name).to_pylist()
            if pattern >> index & 1:
                values[index] = None
            batch = batch.set_column(index, name, pa.array(values, SCHEMA.field(name).type))
        got = [each.batch for each in operator.on_batch(0, batch)]
        check(operator.config, batch, got)
    assert made.count("select") <= VARIANTS_MAX
    assert made.count("compute") <= VARIANTS_MAX


def test_what_arrow_computes_feeds_the_kernel_and_is_counted() -> None:
    length = Call("str.length", (column("text"),), INT)
    predicate = Call("greater", (length, Constant(2, INT)), BOOL)
    operator = fused(Call("add", (length, column("i64")), INT), predicate=predicate)
    batch = batch_of(3, 30, nulls=True)
    check(operator.config, batch, [each.batch for each in operator.on_batch(0, batch)])
    counters = operator.counters
    assert (counters.rows_numba, counters.rows_arrow, counters.rows_python) == (30, 30, 0)


def test_a_cast_that_does_not_fit_fails_the_batch() -> None:
    operator = fused(Call("cast", (column("i64"),), pa.int8()))
    batch = batch_of(1, 3).set_column(3, "i64", pa.array([1, 2, 300]))
    with pytest.raises(JobError, match="cast from int64 to int8 failed"):
        list(operator.on_batch(0, batch))


def test_types_without_numbers_pass_a_filter() -> None:
    schema = pa.schema(
        {
            "i64": INT,
            "list": pa.list_(INT),
            "price": pa.decimal128(10, 2),
            "kind": pa.dictionary(pa.int8(), pa.string()),
            "raw": pa.binary(3),
            "view": pa.string_view(),
            "map": pa.map_(pa.string(), INT),
            "wide": pa.decimal256(50, 2),
        }
    )
    rows: list[dict[str, object]] = [
        {"i64": n, "list": [n], "price": None, "kind": "a", "raw": b"abc", "view": "v"}
        | {"map": [("k", n)], "wide": None}
        for n in range(4)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema)
    outputs = tuple((each.name, Column(each.name, each.type)) for each in schema)
    operator = FusedConfig(schema, greater("i64", 1), outputs).build()
    (emitted,) = operator.on_batch(0, batch)
    assert emitted.batch.to_pylist() == rows[2:]


def test_changes_pass_with_their_weights() -> None:
    config = FusedConfig(SCHEMA, None, (("i64", column("i64")),))
    assert config.consumes is config.produces is ChangeMode.CHANGELOG
    assert (config.timed, config.broadcast_state) == (False, False)
    assert config.describe() == "select i64"
    operator = config.build()
    assert operator.output_watermark(5) == 5
    assert list(operator.on_watermark(5)) == list(operator.on_end()) == []
    assert operator.snapshot(None, 1) is None


SECOND_RUN = """
import sys
from numba.core import event
import pyarrow as pa
from millstream.operators.expression import Call, Column, Constant
from millstream.operators.fused import FusedConfig

class Compilations(event.Listener):
    def on_start(self, event):
        sys.stdout.write("compiled")
    def on_end(self, event):
        pass

event.register("numba:compile", Compilations())
number = pa.int64()
keep = Call("greater", (Column("a", number), Constant(1, number)), pa.bool_())
twice = Call("add", (Column("a", number), Column("a", number)), number)
operator = FusedConfig(pa.schema({"a": number}), keep, (("twice", twice),)).build()
(emitted,) = operator.on_batch(0, pa.record_batch({"a": pa.array([1, 2, 3])}))
assert emitted.batch.to_pydict() == {"twice": [4, 6]}
"""


def test_a_second_process_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path))
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SECOND_RUN], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] != ""
    assert outputs[1] == ""
