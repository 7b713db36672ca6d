"""Rows of any schema, sliced anyhow, go through a topic unchanged: packed, evolved, projected."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log import Log
from tests.log.log_kit import another, memory_log
from tests.log.test_encoding import COMPRESSIONS, batches


def values(table: pa.Table | pa.RecordBatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = table.to_pylist()
    return found


@settings(max_examples=40)
@given(st.lists(batches(), min_size=1, max_size=3), st.sampled_from(COMPRESSIONS), st.data())
def test_rows_of_any_schema_come_back(
    given_batches: list[pa.RecordBatch], compression: str, data: st.DataObject
) -> None:
    log = memory_log()
    first = given_batches[0]
    log.create_topic(
        "x", first.schema, config={"compression.type": compression, "segment.bytes": 5_000}
    )
    with log.producer("x") as producer:
        producer.append(first)
        producer.append(pa.Table.from_batches([first, first]))
    expected = 3 * values(first)
    for number, batch in enumerate(given_batches[1:]):
        added = batch.rename_columns([f"{name}_{number}" for name in batch.schema.names])
        log.alter_topic("x", add_columns=added.schema)
        with log.producer("x") as producer:
            producer.append(added)
            producer.append(first)
        expected += values(added) + values(first)
    found = another(log).topic("x").to_arrow()
    found.validate(full=True)
    names = found.schema.names
    assert values(found) == [{name: row.get(name) for name in names} for row in expected]
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    assert values(projected(log, chosen)) == values(found.select(chosen))


def projected(log: Log, names: list[str]) -> pa.Table:
    topic = another(log).topic("x")
    offset = 0
    batches = []
    while offset < topic.durable_ends()[0]:
        batch = topic.reader(0, offset=offset, columns=[*names, "_offset"]).read()
        assert batch is not None
        assert batch["_offset"][0].as_py() == offset
        batches.append(batch)
        offset += batch.num_rows
    return pa.Table.from_batches(batches).select(names)
