"""Values out of JSON: those that Python's own reader finds at the same path."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.expressions import col
from millstream.errors import ExpressionTypeError, JobError
from millstream.operators.arrow_expression import evaluate
from millstream.operators.functions.json_texts import path_steps

NAMES = st.sampled_from(["a", "b", "ü", "x y", 'q"', "back\\"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from(["", "t", "é\n", "{", '"]'])
    | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
PATHS = st.lists(st.sampled_from(["a", "b", "ü", "x y"]) | st.integers(0, 2), max_size=3)


def read(
    texts: list[str | None], path: str, type_: Any = "string", strict: bool = True
) -> list[Any]:
    batch = pa.record_batch({"x": pa.array([*texts[:1], *texts], pa.string())}).slice(1)
    return evaluate(
        bind(col("x").str.json(path, type_, strict=strict), batch.schema), batch
    ).to_pylist()


def at(value: Any, steps: list[str | int]) -> Any:
    for step in steps:
        fits = isinstance(value, dict) if isinstance(step, str) else isinstance(value, list)
        if not fits:
            return None
        try:
            value = value[step]
        except (KeyError, IndexError):
            return None
    return value


@given(
    values=st.lists(VALUES, min_size=1, max_size=5),
    steps=PATHS,
    escaped=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_a_value_is_the_one_that_python_finds(
    values: list[Any], steps: list[str | int], escaped: bool, indent: int | None
) -> None:
    texts = [json.dumps(each, ensure_ascii=escaped, indent=indent) for each in values]
    path = "$" + "".join(f"[{e}]" if isinstance(e, int) else f"['{e}']" for e in steps)
    for value, got in zip(values, read([*texts], path), strict=True):
        expected = at(value, steps)
        if isinstance(expected, dict | list | bool | int | float):
            assert json.loads(got) == expected
        else:
            assert got == expected


def test_types() -> None:
    texts = ['{"n": 5, "s": "7", "f": 1.5, "t": true, "l": [1, 2], "d": "2024-01-02"}', "{}", None]
    assert read([*texts], "$.n", "int64") == [5, None, None]
    assert read([*texts], "s", "int8") == [7, None, None]
    assert read([*texts], "$.f", float) == [1.5, None, None]
    assert read([*texts], "$.t", "bool") == [True, None, None]
    assert read([*texts], "$.d", "date")[0].isoformat() == "2024-01-02"
    assert read([*texts], "$.l", pa.list_(pa.int32())) == [[1, 2], None, None]
    assert read([*texts], "$.l[1]", "int64") == [2, None, None]
    assert read([*texts], "$.l") == ["[1, 2]", None, None]


def test_what_is_no_json_fails_its_row_or_is_null() -> None:
    for text in ("", "x", '{"a"', '{"a" 1}', "[1", '{"a": }'):
        with pytest.raises(JobError, match="is no JSON"):
            read(['{"a": 1}', text], "$.a" if text[:1] != "[" else "$[3]")
        assert read([text], "$.a", strict=False) == [None]
    with pytest.raises(JobError, match=r"'x' at \$.a is no int64"):
        read(['{"a": 1}', '{"a": "x"}'], "$.a", "int64")
    assert read(['{"a": "x"}'], "$.a", "int64", strict=False) == [None]


def test_a_path_is_checked_when_the_plan_is_built() -> None:
    assert path_steps("$[0].a['b.c']") == (0, "a", "b.c")
    with pytest.raises(ExpressionTypeError, match="is no path"):
        read(["{}"], "$..a")
