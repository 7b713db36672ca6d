"""Values out of JSON text: `$.a.b[0]`, read by a kernel that makes nothing of the rest."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.arrow_buffers import strings_of
from millstream.operators.expression import Call
from millstream.operators.functions.casts import cast
from millstream.operators.functions.function import (
    Function,
    first_failing,
    nulls_where_failing,
    option,
)

_STEP = re.compile(r"""\.([^.\[\]'"\s]+)|\[(\d+)\]|\[(['"])(.*?)\3\]""")

Steps = tuple[str | int, ...]


def path_steps(path: str) -> Steps | None:
    """Return the names and indices of a path such as `$.a[0]['b c']`; `None`: it is none.

    Examples
    --------
    >>> path_steps("$.a[0]['b c']"), path_steps("a.b"), path_steps("$..x")
    (('a', 0, 'b c'), ('a', 'b'), None)
    """
    rest = path[1:] if path.startswith("$") else f".{path}"
    steps: list[str | int] = []
    while rest:
        found = _STEP.match(rest)
        if found is None:
            return None
        name, index, _, quoted = found.groups()
        steps.append(int(index) if index is not None else (quoted if name is None else name))
        rest = rest[found.end() :]
    return tuple(steps)


def _extract(values: list[Any], call: Call) -> Any:
    text = values[0].cast(pa.large_string())
    steps, strict = option(call, "steps"), option(call, "strict")
    if pat.is_nested(call.type):
        return _nested(text, steps, call.type, strict)
    found = _found(text, steps, strict)
    if call.type == pa.large_string() or strict is False:
        return nulls_where_failing(found, lambda part: cast(part, call.type), call.type)
    try:
        return cast(found, call.type)
    except pa.ArrowException as error:
        wrong = found[first_failing(found, lambda part: cast(part, call.type))].as_py()
        message = f"str.json failed: {wrong!r} at {steps_text(steps)} is no {call.type}"
        raise JobError(message) from error


def steps_text(steps: Steps) -> str:
    """Return steps as the path that they came from."""
    return "$" + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in steps)


def _found(text: pa.Array, steps: Steps, strict: bool) -> pa.Array:
    """Return the text of the value at the path in each row."""
    from millstream.operators.kernels import json_path

    count = len(text)
    offsets, data = strings_of(text)
    names = [b"" if isinstance(each, int) else each.encode() for each in steps]
    starts, ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
    kinds = np.zeros(count, np.uint8)
    json_path.find_path(
        np.array(offsets, np.int64),
        data,
        np.frombuffer(bytearray(b"".join(names)), np.uint8),
        np.cumsum([len(each) for each in names], dtype=np.int64),
        np.array([each if isinstance(each, int) else -1 for each in steps], np.int64),
        starts,
        ends,
        kinds,
    )
    valid = text.is_valid().to_numpy(zero_copy_only=False)
    malformed = np.flatnonzero((kinds == json_path.MALFORMED) & valid)
    if len(malformed) and strict:
        raise JobError(_malformed(text[int(malformed[0])].as_py()))
    has_value = (kinds == json_path.PLAIN) | (kinds == json_path.WORD)
    has_value |= kinds == json_path.NESTED
    sizes = np.where(has_value & valid, ends - starts, 0)
    new_offsets = np.concatenate([[0], np.cumsum(sizes)])
    out = np.empty(int(new_offsets[-1]), np.uint8)
    json_path.copy_spans(data, starts, starts + sizes, new_offsets, out)
    bitmap = pa.array(has_value & valid).buffers()[1]
    buffers = [bitmap, pa.py_buffer(new_offsets), pa.py_buffer(out)]
    found = pa.Array.from_buffers(pa.large_string(), count, buffers)
    odd = (kinds == json_path.ESCAPED) | (kinds == json_path.HARD)
    rows = np.flatnonzero(odd & valid)
    if len(rows):
        read = [_read(text[int(row)].as_py(), steps, strict) for row in rows]
        words = [None if each is None else _word(each) for each in read]
        mask = np.zeros(count, dtype=bool)
        mask[rows] = True
        found = pc.replace_with_mask(found, pa.array(mask), pa.array(words, pa.large_string()))
    return found


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read(text: str, steps: Steps, strict: bool | None) -> Any:
    """Return the value at a path, read by Python."""
    try:
        value = json.loads(text)
    except ValueError as error:
        if strict:
            raise JobError(_malformed(text)) from error
        return None
    for step in steps:
        try:
            value = value[step] if isinstance(value, dict) is isinstance(step, str) else None
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _nested(text: pa.Array, steps: Steps, type_: pa.DataType, strict: bool) -> pa.Array:
    found = [None if each is None else _read(each, steps, strict) for each in text.to_pylist()]
    try:
        return pa.array(found, type_)
    except (pa.ArrowException, TypeError) as error:
        message = f"str.json failed: a value at {steps_text(steps)} is no {type_} ({error})"
        raise JobError(message) from error


def _malformed(text: str) -> str:
    shown = text if len(text) <= 80 else f"{text[:80]}…"
    return f"str.json failed: {shown!r} is no JSON; with strict=False it would be null"


FUNCTIONS: dict[str, Function] = {"str.json": _extract}
