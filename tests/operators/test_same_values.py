from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.same_values import are_same

NUMBERS = st.none() | st.sampled_from([-0.0, 0.0, 1.5, math.nan])
LISTS = st.none() | st.lists(st.none() | st.integers(0, 1), max_size=2)
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.float64(): NUMBERS,
    pa.float16(): st.none() | st.sampled_from([0.0, 1.5]),
    pa.string(): st.none() | st.sampled_from(["", "a"]),
    pa.string_view(): st.none() | st.sampled_from(["", "a"]),
    pa.dictionary(pa.int8(), pa.string()): st.none() | st.sampled_from(["", "a"]),
    pa.decimal128(4, 1): st.none() | st.integers(0, 2),
    pa.null(): st.none(),
    pa.list_(pa.int8()): LISTS,
    pa.large_list(pa.list_(pa.int8())): st.none() | st.lists(LISTS, max_size=2),
    pa.list_(pa.int8(), 2): st.none() | st.lists(st.integers(0, 1), min_size=2, max_size=2),
    pa.struct({"x": pa.float64(), "y": pa.list_(pa.int8())}): st.none()
    | st.fixed_dictionaries({"x": NUMBERS, "y": LISTS}),
    pa.map_(pa.int8(), pa.float64()): st.none()
    | st.dictionaries(st.integers(0, 1), NUMBERS, max_size=2).map(lambda each: list(each.items())),
}


def plain(value: Any) -> Any:
    """A value whose text is that of all that are the same."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return {name: plain(value[name]) for name in sorted(value)}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("type_", VALUES, ids=str)
@settings(max_examples=25)
@given(data=st.data(), first=st.integers(0, 2))
def test_values_are_the_same_where_their_texts_are(
    type_: pa.DataType, data: st.DataObject, first: int
) -> None:
    pairs = data.draw(st.lists(st.tuples(VALUES[type_], VALUES[type_]), max_size=8))
    columns = (pa.array([each[side] for each in pairs], type_).slice(first) for side in (0, 1))
    expected = [repr(plain(one)) == repr(plain(other)) for one, other in pairs[first:]]
    assert are_same(*columns).tolist() == expected
