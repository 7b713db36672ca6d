from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from millstream.cli.demo.checks import (
    Agreement,
    check_against_duckdb,
    check_against_model,
    duckdb_hours,
)
from millstream.cli.demo.flights import data_folder, read_flights, read_tables
from millstream.cli.demo.model import HOUR_US
from millstream.errors import JobError

DAY_US = 24 * HOUR_US


@pytest.fixture(scope="module")
def january() -> pa.Table:
    return read_flights(data_folder()).slice(0, 27_000)


@pytest.fixture(scope="module")
def airlines() -> pa.Table:
    return read_tables(data_folder())["airlines"]


@pytest.fixture(scope="module")
def hours(january: pa.Table, airlines: pa.Table) -> pa.Table:
    return duckdb_hours(january, airlines)


def cancelled(flights: pa.Table) -> pa.Table:
    return flights.filter(pc.is_null(flights["dep_delay"]))


def test_duckdb_and_the_model_agree_where_nothing_is_late(
    january: pa.Table, airlines: pa.Table, hours: pa.Table
) -> None:
    none = january.slice(0, 0)
    by_query = check_against_duckdb(hours, none, cancelled(january), january, airlines)
    halves = [january.slice(0, 9_000), january.slice(9_000)]
    by_row = check_against_model(hours, none, cancelled(january), halves, DAY_US)
    assert by_query == by_row
    assert by_query == Agreement(hours.num_rows, by_query.flights, 0, 521)


def test_a_missing_hour_is_named(january: pa.Table, airlines: pa.Table, hours: pa.Table) -> None:
    with pytest.raises(JobError, match=r"1 of \d+ hours differ from DuckDB.*got None"):
        check_against_duckdb(
            hours.slice(1), january.slice(0, 0), cancelled(january), january, airlines
        )


def test_a_wrong_mean_is_found(january: pa.Table, airlines: pa.Table, hours: pa.Table) -> None:
    index = hours.schema.get_field_index("mean_delay")
    wrong = hours.set_column(index, "mean_delay", pc.multiply(hours["mean_delay"], 1 + 1e-9))
    with pytest.raises(JobError, match="hours differ"):
        check_against_duckdb(wrong, january.slice(0, 0), cancelled(january), january, airlines)


def test_an_hour_that_stands_twice_is_found(
    january: pa.Table, airlines: pa.Table, hours: pa.Table
) -> None:
    twice = pa.concat_tables([hours, hours.slice(0, 1)])
    with pytest.raises(JobError, match="twice"):
        check_against_duckdb(twice, january.slice(0, 0), cancelled(january), january, airlines)


def test_a_lost_cancelled_flight_is_found(
    january: pa.Table, airlines: pa.Table, hours: pa.Table
) -> None:
    with pytest.raises(JobError, match="cancelled flights differ from DuckDB: got 520"):
        check_against_duckdb(
            hours, january.slice(0, 0), cancelled(january).slice(1), january, airlines
        )


def test_lost_late_rows_are_found(january: pa.Table, hours: pa.Table) -> None:
    with pytest.raises(JobError, match="differ from the row-by-row model"):
        check_against_model(
            hours, january.slice(0, 0), cancelled(january), [january], 10 * 60_000_000
        )
