"""Filter, join, key by, one-hour windows, log to log, beside DuckDB on one thread.

The input is the year of flights that the demo reads, over and over with the time moved on by a
year each round (scheduled time, origin, carrier, delay: about 24 bytes a row), with the real
disorder and nulls. DuckDB runs the same query on one thread over the same Arrow files, mapped,
and writes its result as an Arrow IPC file to the same disk. The job runs at P=1 in this process
with checkpoints on and warm kernels; the two take turns, and of each the median counts.

The bound: 20 bytes a row read and checksummed, one hash and one probe a row that passes (a fifth
of them): memory speed, as the aggregates of one hour fit into the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, main, scratch_directory
from benchmarks.jobs import passes_over
from millstream import col
from millstream.cli.demo.flights import data_folder, read_flights, read_tables

COLUMNS = ["scheduled", "origin", "carrier", "dep_delay"]
YEAR_US = 366 * 24 * 3_600_000_000

QUERY = """
    SELECT f.origin,
           time_bucket(INTERVAL 1 HOUR, f.scheduled) AS window_start,
           count(*) AS flights,
           avg(f.dep_delay) AS mean_delay,
           max(f.dep_delay) AS worst_delay
    FROM flights AS f JOIN airlines AS a USING (carrier)
    WHERE f.dep_delay > 15
    GROUP BY ALL
"""


def rounds_of_flights(count: int) -> list[pa.Table]:
    """Return the year's flights `count` times, each a year after the one before."""
    flights = read_flights(data_folder()).select(COLUMNS)
    time = flights["scheduled"]
    rounds = []
    for index in range(count):
        moved = pc.add(time.cast(pa.int64()), index * YEAR_US).cast(time.type)
        rounds.append(flights.set_column(0, flights.schema.field(0), moved))
    return rounds


def job(output: str) -> ms.Sink:
    """Return the benchmark's job, written to topic `output`."""
    return (
        ms.stream("flights", time="scheduled", lateness="24h")
        .filter(col("dep_delay") > 15)
        .join(ms.table("airlines", key="carrier"), on="carrier")
        .key_by("origin")
        .window(ms.tumbling("1h"))
        .agg(flights=ms.count(), mean_delay=ms.mean("dep_delay"), worst_delay=ms.max("dep_delay"))
        .to(output)
    )


@contextmanager
def duckdb_query(flights: pa.Table, airlines: pa.Table, path: Path) -> Iterator[Callable[[], None]]:
    """Give the query as DuckDB runs it on one thread, its result written to `path`."""
    # Times with a zone need an extension that is not in DuckDB's wheel.
    plain = flights.set_column(0, "scheduled", flights["scheduled"].cast(pa.timestamp("us")))
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("flights", plain)
        connection.register("airlines", airlines)

        def query() -> None:
            result = connection.sql(QUERY).to_arrow_table()
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, result.schema) as writer:
                writer.write_table(result)

        yield query


def run(quick: bool) -> Figures:
    """Measure the job and DuckDB over the same files."""
    round_count = 6 if quick else 60
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        flights, airlines = rounds_of_flights(round_count), read_tables(data_folder())["airlines"]
        log.create_topic("flights", flights[0].schema, time="scheduled")
        log.create_topic("airlines", airlines.schema, key=("carrier",), table=True)
        with log.producer("airlines") as producer:
            producer.append(airlines)
        with log.producer("flights") as producer:
            for each in flights:
                producer.append(each)
        mapped = log.topic("flights").to_arrow()
        with duckdb_query(mapped, airlines, directory / "result.arrow") as query:
            measured = passes_over(
                log, job, "flights", {"duckdb": query}, seconds=1.0 if quick else 10.0
            )
        duckdb_rate = mapped.num_rows / measured.peers["duckdb"]
    return {
        "log_to_log": compared(
            measured.rows_per_second, "rows/s", "DuckDB, one thread", duckdb_rate, goal=1.0
        ),
        "duckdb": Figure(duckdb_rate, "rows/s"),
        "checkpoints": Figure(measured.checkpoints, ""),
        "rows_through_python": Figure(measured.rows_python, "rows", "lower", goal=0),
    }


if __name__ == "__main__":
    main(run, __doc__)
