from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.dsl.promotion import arithmetic_type, common_type

NUMBERS = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(),
    pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float16(), pa.float32(), pa.float64(),
]  # fmt: skip


@pytest.mark.parametrize(
    ("left", "right", "meeting"),
    [
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.uint8(), pa.int8(), pa.int64()),
        (pa.uint64(), pa.int8(), None),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.date32(), pa.timestamp("ms"), pa.timestamp("ms")),
        (pa.date32(), pa.date64(), pa.date32()),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.duration("s"), pa.duration("ns"), pa.duration("ns")),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.decimal128(10, 2), pa.int8(), pa.decimal128(10, 2)),
        (pa.decimal128(10, 2), pa.int64(), pa.decimal128(21, 2)),
        (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
        (pa.decimal128(10, 2), pa.float32(), pa.float64()),
        (pa.string(), pa.int64(), None),
        (pa.bool_(), pa.int64(), None),
        (pa.binary(), pa.string(), None),
    ],
)
def test_types_meet(left: pa.DataType, right: pa.DataType, meeting: pa.DataType | None) -> None:
    assert common_type(left, right) == meeting
    assert common_type(right, left) == meeting


@pytest.mark.parametrize("left", NUMBERS, ids=str)
@pytest.mark.parametrize("right", NUMBERS, ids=str)
def test_numbers_meet_in_a_type_that_holds_both(left: pa.DataType, right: pa.DataType) -> None:
    meeting = common_type(left, right)
    if meeting is None:
        assert pa.uint64() in {left, right}
        return
    assert common_type(right, left) == meeting
    for each in (left, right):
        if pa.types.is_integer(each) and pa.types.is_integer(meeting):
            for end in ends(each):
                pa.scalar(end, meeting)


def ends(integer: pa.DataType) -> tuple[int, int]:
    bits = integer.bit_width
    signed = pa.types.is_signed_integer(integer)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def test_small_integers_are_computed_in_64_bits() -> None:
    assert arithmetic_type(pa.int8()) == arithmetic_type(pa.uint32()) == pa.int64()
    assert arithmetic_type(pa.uint64()) == pa.uint64()
    assert arithmetic_type(pa.float16()) == pa.float32()
