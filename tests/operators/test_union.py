"""A union passes batches as they are."""

from __future__ import annotations

import pyarrow as pa

from millstream.operators.operator import ChangeMode
from millstream.operators.union import UnionConfig

SCHEMA = pa.schema({"a": pa.int64()})


def test_batches_of_every_input_pass_untouched() -> None:
    operator = UnionConfig(SCHEMA).build()
    for index in range(3):
        batch = pa.record_batch({"a": pa.array([index]), "_weight": pa.array([-1])})
        (emitted,) = operator.on_batch(index, batch)
        assert emitted.port == 0
        assert emitted.batch is batch
    assert (operator.counters.rows_in, operator.counters.rows_out) == (3, 3)


def test_a_union_keeps_nothing_and_no_time() -> None:
    config = UnionConfig(SCHEMA)
    assert config.consumes is config.produces is ChangeMode.CHANGELOG
    assert (config.timed, config.broadcast_state) == (False, False)
    assert config.output_schemas == (SCHEMA,)
    assert config.describe() == "union"
    operator = config.build()
    assert operator.output_watermark(7) == 7
    assert list(operator.on_watermark(7)) == list(operator.on_end()) == []
    assert operator.snapshot(None, 1) is None
    operator.restore([], range(4096))


def test_an_empty_batch_is_not_passed_on() -> None:
    operator = UnionConfig(SCHEMA).build()
    assert list(operator.on_batch(0, pa.record_batch({"a": pa.array([], pa.int64())}))) == []
