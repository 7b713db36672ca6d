"""The demo's two checks of the job's output: against DuckDB, and row by row in Python."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from millstream.cli.demo.model import Hour, Outcome, late_departures
from millstream.errors import JobError, MissingExtraError

HourTable = dict[tuple[str, int], Hour]

ORACLE = """
    SELECT f.origin,
           time_bucket(INTERVAL 1 HOUR, f.scheduled) AS window_start,
           count(*) AS flights,
           avg(f.dep_delay) AS mean_delay,
           max(f.dep_delay) AS worst_delay
    FROM flights AS f JOIN airlines AS a USING (carrier)
    WHERE f.dep_delay > 15
    GROUP BY ALL
"""
"""The job as one query over everything; the same as the stream's answer when nothing is late."""


MODEL_COLUMNS = ["scheduled", "carrier", "flight", "origin", "dep_delay"]
"""What the row-by-row model reads of a flight."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a check compared, for the report."""

    hours: int
    flights: int
    late: int
    cancelled: int


def duckdb_hours(flights: pa.Table, airlines: pa.Table) -> pa.Table:
    """Return DuckDB's answer to `ORACLE` over the rows of the two topics.

    Raises
    ------
    MissingExtraError
        When DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        message = (
            "the demo's result cannot be checked: package 'duckdb' is not installed; "
            "install the demo's extra: pip install 'millstream[demo]'"
        )
        raise MissingExtraError(message) from error
    # DuckDB's arithmetic on times with a zone needs an extension that is not in its wheel.
    index = flights.schema.get_field_index("scheduled")
    plain = flights["scheduled"].cast(pa.timestamp("us"))
    with duckdb.connect() as connection:
        connection.register("flights", flights.set_column(index, "scheduled", plain))
        connection.register("airlines", airlines)
        return connection.sql(ORACLE).to_arrow_table()


def check_against_duckdb(
    hours: pa.Table, late: pa.Table, cancelled: pa.Table, flights: pa.Table, airlines: pa.Table
) -> Agreement:
    """Compare the first run with DuckDB's answer; nothing may have been late.

    Raises
    ------
    JobError
        When they differ; names the first hours that do.
    """
    got = hour_table(hours)
    _compare_hours("DuckDB", got, hour_table(duckdb_hours(flights, airlines)))
    _compare_count("DuckDB", "late flights", late.num_rows, 0)
    never_departed = flights["dep_delay"].null_count
    _compare_count("DuckDB", "cancelled flights", cancelled.num_rows, never_departed)
    return Agreement(len(got), _flights(got), 0, never_departed)


def check_against_model(
    hours: pa.Table,
    late: pa.Table,
    cancelled: pa.Table,
    partitions: list[pa.Table],
    lateness_us: int,
) -> Agreement:
    """Compare a run with the row-by-row model over each partition's rows, late rows included.

    Raises
    ------
    JobError
        When they differ; names the first hours or flights that do.
    """
    expected = model_outcome(partitions, lateness_us)
    got = hour_table(hours)
    _compare_hours("the row-by-row model", got, expected.hours)
    late_got = sorted(
        (row["scheduled"], row["carrier"], row["flight"], row["origin"])
        for row in _plain_rows(late, ["scheduled", "carrier", "flight", "origin"])
    )
    if late_got != expected.late:
        differing = sorted(set(late_got) ^ set(expected.late))
        message = (
            f"the late flights differ from the row-by-row model: got {len(late_got)}, "
            f"expected {len(expected.late)}; the first that differ: {differing[:3]}"
        )
        raise JobError(message)
    _compare_count(
        "the row-by-row model", "cancelled flights", cancelled.num_rows, expected.cancelled
    )
    return Agreement(len(got), _flights(got), len(late_got), expected.cancelled)


def model_outcome(partitions: list[pa.Table], lateness_us: int) -> Outcome:
    """Return the model's outcome over the rows of each partition, in the order of offsets."""
    return late_departures([_plain_rows(each, MODEL_COLUMNS) for each in partitions], lateness_us)


def hour_table(hours: pa.Table) -> HourTable:
    """Return result rows by airport and start of the hour.

    Raises
    ------
    JobError
        When an hour stands there twice.
    """
    names = ["origin", "window_start", "flights", "mean_delay", "worst_delay"]
    table: HourTable = {}
    for row in _plain_rows(hours, names):
        key = (row["origin"], row["window_start"])
        if key in table:
            message = f"the output holds the hour {key} twice; a window closes only once"
            raise JobError(message)
        table[key] = Hour(row["flights"], row["mean_delay"], row["worst_delay"])
    return table


def _plain_rows(table: pa.Table, names: list[str]) -> list[dict[str, Any]]:
    """Return rows as dicts, timestamps as microseconds since 1970 UTC."""
    columns = [
        table[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        if pa.types.is_timestamp(table.schema.field(name).type)
        else table[name]
        for name in names
    ]
    rows: list[dict[str, Any]] = pa.table(columns, names).to_pylist()
    return rows


def _compare_hours(oracle: str, got: HourTable, expected: HourTable) -> None:
    differing = [
        key
        for key in sorted(got.keys() | expected.keys())
        if not _same(got.get(key), expected.get(key))
    ]
    if not differing:
        return
    first = differing[0]
    message = (
        f"{len(differing)} of {len(expected)} hours differ from {oracle}; "
        f"the first is {first}: got {got.get(first)}, expected {expected.get(first)}"
    )
    raise JobError(message)


def _same(got: Hour | None, expected: Hour | None) -> bool:
    if got is None or expected is None:
        return False
    return (got.flights, got.worst_delay) == (expected.flights, expected.worst_delay) and (
        math.isclose(got.mean_delay, expected.mean_delay, rel_tol=1e-12)
    )


def _compare_count(oracle: str, what: str, got: int, expected: int) -> None:
    if got != expected:
        message = f"{what} differ from {oracle}: got {got:,}, expected {expected:,}"
        raise JobError(message)


def _flights(hours: HourTable) -> int:
    return sum(hour.flights for hour in hours.values())
