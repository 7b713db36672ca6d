from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.log.row_time import TIME_MIN, first_row_at, max_time_us

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("data_type", "values", "largest_us"),
    [
        (pa.timestamp("s"), [1, 3, None], 3_000_000),
        (pa.timestamp("ms", "UTC"), [-5, None], -5_000),
        (pa.timestamp("us", "Europe/Berlin"), [7, 9], 9),
        (pa.timestamp("ns"), [-1, None], -1),
        (pa.timestamp("ns"), [1_999], 1),
        (pa.date32(), [2, 1], 2 * DAY_US),
        (pa.int64(), [2**62], 2**62),
        (pa.timestamp("us"), [None], TIME_MIN),
    ],
)
def test_the_largest_time_is_floored_to_microseconds(
    data_type: pa.DataType, values: list[int | None], largest_us: int
) -> None:
    batch = pa.record_batch({"at": pa.array(values, data_type)})
    assert max_time_us(batch, "at") == largest_us
    if largest_us > TIME_MIN:
        assert first_row_at(batch, "at", largest_us - 1) >= 0


@pytest.mark.parametrize(
    ("data_type", "unit_us"), [(pa.timestamp("s"), 1_000_000), (pa.date32(), DAY_US)]
)
def test_a_row_that_reaches_the_time_is_found(data_type: pa.DataType, unit_us: int) -> None:
    batch = pa.record_batch({"at": pa.array([None, 1, 3, 2, 4], data_type)})
    assert first_row_at(batch, "at", 0) == 1
    assert first_row_at(batch, "at", unit_us) == 1
    assert first_row_at(batch, "at", unit_us + 1) == 2
    assert first_row_at(batch, "at", 4 * unit_us) == 4
    assert first_row_at(batch, "at", 4 * unit_us + 1) == -1
    assert first_row_at(batch, "at", TIME_MIN) == 1


def test_a_time_beyond_what_nanoseconds_hold_is_reached_by_no_row() -> None:
    batch = pa.record_batch({"at": pa.array([2**62], pa.timestamp("ns"))})
    assert first_row_at(batch, "at", 2**63 - 1) == -1
