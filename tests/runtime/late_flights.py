"""The job that simulations run: made-up flights, late departures by airport and hour, an oracle.

The oracle is the demo's row-by-row model, which shares no code with the engine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

import millstream as ms
from millstream import col, lit
from millstream.cli.demo.checks import hour_table
from millstream.cli.demo.model import Hour, Outcome, late_departures
from millstream.log import Log
from millstream.plan.compile import compile_job
from millstream.runtime.attempt import Compiler

TIME = pa.timestamp("us", tz="UTC")
FLIGHTS = pa.schema(
    [
        pa.field("scheduled", TIME, nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("flight", pa.int32(), nullable=False),
        pa.field("dep_delay", pa.int32()),
    ]
)
AIRLINES = pa.schema([("carrier", pa.string()), ("name", pa.string())])
ORIGINS = ("EWR", "JFK", "LGA", "a small airport with a long name")
CARRIERS = ("AA", "B6", "UA", "WN")
START_US = 1_356_998_400_000_000
MINUTE_US = 60_000_000
JOB = "late_flights"
OUTPUTS = ("hours", "hours_late", "hours_cancelled")


def make_flights(random_: random.Random, count: int) -> pa.Table:
    """Flights in the order in which they left: hours of disorder, nulls, one airport in front."""
    rows = []
    minute = 0
    for number in range(count):
        minute += random_.choice((0, 1, 3, 10))
        behind = random_.choice((0, 0, 0, 5, 40, 200))
        rows.append(
            {
                "scheduled": START_US + (minute - behind) * MINUTE_US,
                "origin": random_.choice((*ORIGINS, "JFK", "JFK")),
                "carrier": random_.choice(CARRIERS),
                "flight": number,
                "dep_delay": random_.choice((None, 3, 16, 20, 100)),
            }
        )
    columns = {name: [row[name] for row in rows] for name in FLIGHTS.names}
    columns["scheduled"] = pa.array(columns["scheduled"], pa.int64()).cast(TIME)
    return pa.table(columns, schema=FLIGHTS)


def load(log: Log, random_: random.Random, *, count: int, partitions: int) -> None:
    """Write flights, in frames of random sizes, and the table of airlines."""
    log.create_topic(
        "flights", FLIGHTS, partitions=partitions, key=("carrier", "flight"), time="scheduled"
    )
    log.create_topic("airlines", AIRLINES, key=("carrier",), table=True)
    names = [f"airline {each}" for each in CARRIERS]
    with log.producer("airlines") as producer:
        producer.append(pa.table([list(CARRIERS), names], schema=AIRLINES))
    flights = make_flights(random_, count)
    with log.producer("flights") as producer:
        start = 0
        while start < count:
            size = random_.randrange(1, 40)
            producer.append(flights.slice(start, size))
            start += size


def sinks(log: Log, lateness: str) -> list[ms.Sink]:
    """The job: filters, a union, a table join, windows by key, late rows, a side output."""
    flights = ms.stream("flights", time="scheduled", lateness=lateness, log=log)
    airlines = ms.table("airlines", key="carrier", log=log)
    # United again, what was one batch is two: the second one rests where there is no room.
    even, odd = flights.filter(col("dep_delay") > 15).branch(col("flight") % 2 == 0, lit(True))
    hours = (
        even.union(odd)
        .join(airlines, on="carrier")
        .key_by("origin")
        .window(ms.tumbling("1h"))
        .agg(
            flights=ms.count(),
            mean_delay=ms.mean("dep_delay"),
            worst_delay=ms.max("dep_delay"),
        )
    )
    cancelled = flights.filter(col("dep_delay").is_null())
    return [hours.to("hours"), hours.late().to("hours_late"), cancelled.to("hours_cancelled")]


def compiler(log: Log, lateness: str) -> Compiler:
    """The job, to be compiled for a parallelism."""
    roots = [each.node for each in sinks(log, lateness)]
    return lambda parallelism, partitions: compile_job(roots, JOB, parallelism, partitions)


def expected(log: Log, lateness_us: int, ends: Sequence[int] | None = None) -> Outcome:
    """The model's outcome over what lies in the log, in each partition before its end."""
    source = log.topic("flights")
    partitions = []
    for index in range(source.partitions):
        reader, batches = source.reader(index), []
        while (batch := reader.read(until=None if ends is None else ends[index])) is not None:
            batches.append(batch)
        partitions.append(plain_rows(pa.Table.from_batches(batches, FLIGHTS)))
    return late_departures(partitions, lateness_us)


def outcome(log: Log) -> Outcome:
    """What the job's topics hold; an hour that stands there twice is an error."""
    hours, late, cancelled = (log.topic(name).to_arrow() for name in OUTPUTS)
    identities = sorted(
        (row["scheduled"], row["carrier"], row["flight"], row["origin"]) for row in plain_rows(late)
    )
    numbers = cancelled.column("flight").to_pylist()
    assert len(numbers) == len(set(numbers)), "a cancelled flight came twice"
    table = hour_table(hours)
    assert all(isinstance(each, Hour) for each in table.values())
    return Outcome(table, identities, len(numbers))


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts, event time as microseconds."""
    index = table.schema.get_field_index("scheduled")
    times = table.column("scheduled").cast(pa.int64())
    rows: list[dict[str, Any]] = table.set_column(index, "scheduled", times).to_pylist()
    return rows
