"""The events as topics of a log, and as Arrow tables for those who read them from memory."""

from __future__ import annotations

import pyarrow as pa

import millstream as ms
from benchmarks.nexmark.generator import AUCTION, BID, PERSON, Generator

TIME_COLUMN = "date_time"
TOPICS = {"person": PERSON, "auction": AUCTION, "bid": BID}


def fill(log: ms.Log, events: int, *, seed: int = 0, partitions: int = 1) -> None:
    """Write the first `events` events into topics `person`, `auction` and `bid`."""
    for name, schema in TOPICS.items():
        log.create_topic(name, schema, partitions=partitions, time=TIME_COLUMN, durability="os")
    producers = {name: log.producer(name) for name in TOPICS}
    for chunk in Generator(seed).chunks(events):
        for name, producer in producers.items():
            producer.append(getattr(chunk, name))
    for producer in producers.values():
        producer.close()


def tables(log: ms.Log) -> dict[str, pa.Table]:
    """Return the topics' rows, mapped from the log."""
    return {name: without_zones(log.topic(name).to_arrow()) for name in TOPICS}


def without_zones(rows: pa.Table) -> pa.Table:
    """Return the rows with plain times: DuckDB needs an extension for those with a zone."""
    fields = [
        each.with_type(pa.timestamp(each.type.unit)) if pa.types.is_timestamp(each.type) else each
        for each in rows.schema
    ]
    return rows.cast(pa.schema(fields))
