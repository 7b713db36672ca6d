"""The demo's first step: flights and tables go through the public producer into topics."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from rich.progress import BarColumn, Progress, TextColumn

from millstream.cli.console import notes
from millstream.cli.demo.flights import FLIGHT_KEY, TABLE_KEYS
from millstream.log import Log

FLIGHT_PARTITIONS = 4
SLICE_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows went into each topic."""

    rows: dict[str, int]

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values())


def load_topics(log: Log, flights: pa.Table, tables: dict[str, pa.Table]) -> Loaded:
    """Create the demo's topics and append all rows, durably, showing a bar on a terminal."""
    log.create_topic(
        "flights", flights.schema, partitions=FLIGHT_PARTITIONS, key=FLIGHT_KEY, time="scheduled"
    )
    for name, table in tables.items():
        log.create_topic(name, table.schema, key=TABLE_KEYS[name], table=True)
    columns = (
        TextColumn("   {task.description:<9}"),
        BarColumn(bar_width=40),
        TextColumn("{task.completed:>7,} of {task.total:,} rows"),
    )
    everything = {**tables, "flights": flights}
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as progress:
        for name, table in everything.items():
            task = progress.add_task(name, total=table.num_rows)
            with log.producer(name) as producer:
                for first in range(0, table.num_rows, SLICE_ROWS):
                    piece = table.slice(first, SLICE_ROWS)
                    producer.append(piece)
                    progress.advance(task, piece.num_rows)
    return Loaded({name: table.num_rows for name, table in everything.items()})


def partition_tables(log: Log, topic: str, columns: list[str]) -> list[pa.Table]:
    """Return each partition's committed rows, in the order of their offsets."""
    source = log.topic(topic)
    schema = pa.schema([source.schema.field(name) for name in columns])
    tables = []
    for index in range(source.partitions):
        reader = source.reader(index, columns=columns)
        batches = []
        while (batch := reader.read()) is not None:
            batches.append(batch)
        tables.append(pa.Table.from_batches(batches, schema))
    return tables
