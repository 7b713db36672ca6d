"""Values of every Arrow type in JSON, and back: what JSON has no form for is text or a number.

| type | in JSON |
|---|---|
| numbers, booleans, text | as they are; others than numbers `"NaN"`, `"Infinity"`, `"-Infinity"` |
| decimals | text, so that no digit is lost |
| binary | base64 |
| timestamps, dates, times | ISO 8601; of nanoseconds with nine digits |
| durations | a number, in the type's unit |
| lists | arrays; structs objects; maps arrays of `[key, value]` |
| dictionaries | their values |
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import time
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_types: Any = pa.types


def json_lines(rows: pa.RecordBatch) -> bytes:
    """Return the rows as JSON objects, one a line."""
    ready = [_ready(column) for column in rows.columns]
    shown = pa.RecordBatch.from_arrays(ready, names=rows.schema.names).to_pylist()
    if any(_has_odd_number(column) for column in ready):
        shown = [_without_odd_numbers(row) for row in shown]
    encode = msgspec.json.Encoder(enc_hook=_other).encode
    return b"".join(encode(row) + b"\n" for row in shown)


def is_plain(data_type: pa.DataType) -> bool:
    """Return whether Arrow's own JSON parser reads what `json_lines` writes of a type."""
    if _types.is_struct(data_type):
        return all(is_plain(field.type) for field in data_type)
    if _types.is_list(data_type):
        return is_plain(data_type.value_type)
    if _types.is_timestamp(data_type):
        return data_type.unit != "ns" and data_type.tz in {None, "UTC"}
    return bool(
        _types.is_boolean(data_type)
        or _types.is_integer(data_type)
        or _types.is_float32(data_type)
        or _types.is_float64(data_type)
        or _types.is_string(data_type)
    )


def read_lines(lines: list[bytes], schema: pa.Schema) -> pa.Table:
    """Return one row per line; fields that a line leaves out are null.

    Any type is read, each value for itself.

    Raises
    ------
    pyarrow.ArrowInvalid
        Where a line is no row of `schema`; says which field, where it is one.
    """
    known = set(schema.names)
    try:
        rows = [msgspec.json.decode(line) for line in lines]
    except msgspec.DecodeError as error:
        raise pa.ArrowInvalid(str(error)) from error
    for row in rows:
        if not isinstance(row, dict):
            message = "not a JSON object"
            raise pa.ArrowInvalid(message)
        if not row.keys() <= known:
            message = f"the topic has no column {min(row.keys() - known)!r}"
            raise pa.ArrowInvalid(message)
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        try:
            columns.append(_array(values, field.type))
        except (ValueError, TypeError, ArithmeticError, AttributeError, KeyError) as error:
            message = f"column {field.name!r} is {field.type}: {error}"
            raise pa.ArrowInvalid(message) from error
    return pa.table(columns, schema=schema)


def _ready(values: pa.Array) -> pa.Array:
    """Return an array whose Python values have a form in JSON."""
    data_type = values.type
    if _types.is_duration(data_type):
        return values.cast(pa.int64())
    if _types.is_timestamp(data_type) and data_type.unit == "ns":
        utc = values.cast(pa.timestamp("ns", None if data_type.tz is None else "UTC"))
        return pc.replace_substring(utc.cast(pa.string()), " ", "T")
    if _types.is_time64(data_type) and data_type.unit == "ns":
        return values.cast(pa.string())
    if _types.is_dictionary(data_type):
        return _ready(values.dictionary_decode())
    if _types.is_struct(data_type):
        children = [_ready(child) for child in values.flatten()]
        names = [field.name for field in data_type]
        return pa.StructArray.from_arrays(children, names=names, mask=values.is_null())
    if _types.is_list(data_type) or _types.is_large_list(data_type):
        # Brought to the front: a slice's offsets do not start with 0.
        whole = pa.concat_arrays([values])
        kind = pa.ListArray if _types.is_list(data_type) else pa.LargeListArray
        return kind.from_arrays(whole.offsets, _ready(whole.values), mask=whole.is_null())
    return values


def _has_odd_number(values: pa.Array) -> bool:
    data_type = values.type
    if _types.is_floating(data_type):
        return pc.all(pc.is_finite(values.cast(pa.float64()))).as_py() not in {True, None}
    return has_floats(data_type)


def has_floats(data_type: pa.DataType) -> bool:
    """Return whether there are floats in values of a type."""
    return any(_types.is_floating(each) for each in _leaves(data_type))


def _leaves(data_type: pa.DataType) -> list[pa.DataType]:
    if data_type.num_fields == 0:
        return [data_type]
    children = (data_type.field(index).type for index in range(data_type.num_fields))
    return [leaf for child in children for leaf in _leaves(child)]


def _without_odd_numbers(value: Any) -> Any:
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: _without_odd_numbers(each) for key, each in value.items()}
        case list() | tuple():
            return [_without_odd_numbers(each) for each in value]
        case _:
            return value


def _other(value: Any) -> Any:
    """Return a value that msgspec does not know, as one that it does."""
    if isinstance(value, tuple):
        return list(value)
    return float(value)  # a float16 is one of NumPy's


def _array(values: list[Any], data_type: pa.DataType) -> pa.Array:
    """Return values that were read from JSON as an array."""
    if _types.is_dictionary(data_type):
        return _array(values, data_type.value_type).dictionary_encode().cast(data_type)
    if _types.is_timestamp(data_type):
        return _timestamps(values, data_type)
    if _types.is_date(data_type):
        return pa.array(values, pa.string()).cast(data_type)
    if _types.is_time(data_type):
        counts = [None if each is None else _time_count(each, data_type.unit) for each in values]
        return pa.array(counts, pa.int64()).cast(_width_of(data_type)).cast(data_type)
    if _types.is_duration(data_type):
        return pa.array(values, pa.int64()).cast(data_type)
    convert = _converter(data_type)
    return pa.array([None if each is None else convert(each) for each in values], data_type)


def _timestamps(values: list[Any], data_type: pa.DataType) -> pa.Array:
    """Return times that are written in ISO 8601; without a zone they are in UTC."""
    texts = pa.array(values, pa.string())
    # Read with more digits than the type has, so that zeros at the end do no harm.
    unit = "ns" if data_type.unit == "ns" else "us"
    if data_type.tz is None:
        return texts.cast(pa.timestamp(unit)).cast(data_type)
    has_zone = pc.match_substring_regex(texts, r"(Z|[+-]\d\d:?\d\d)$")
    in_utc = pc.if_else(has_zone, texts, pc.binary_join_element_wise(texts, "Z", ""))
    return in_utc.cast(pa.timestamp(unit, "UTC")).cast(data_type)


def _time_count(text: str, unit: str) -> int:
    """Return a time of day, in ISO 8601, as a number of units since midnight."""
    whole, _, fraction = text.partition(".")
    clock = time.fromisoformat(whole)
    nanoseconds = int(fraction.ljust(9, "0")) if fraction else 0
    count = (clock.hour * 3_600 + clock.minute * 60 + clock.second) * 10**9 + nanoseconds
    size = _UNITS_NS[unit]
    if count % size or len(fraction) > 9:
        message = f"{text!r} has more digits than its unit, {unit}"
        raise ValueError(message)
    return count // size


def _width_of(data_type: pa.DataType) -> pa.DataType:
    return pa.int32() if _types.is_time32(data_type) else pa.int64()


def _converter(data_type: pa.DataType) -> Callable[[Any], Any]:
    """Return what makes of a value in JSON one that `pyarrow.array` takes for a type."""
    if _types.is_floating(data_type):
        return lambda value: _NUMBERS[value] if isinstance(value, str) else value
    if _types.is_decimal(data_type):
        return lambda value: Decimal(str(value))
    if _is_bytes(data_type):
        return lambda value: base64.b64decode(value, validate=True)
    if _types.is_map(data_type):
        key, item = data_type.key_type, data_type.item_type
        return lambda value: [(_one(k, key), _one(v, item)) for k, v in value]
    if _types.is_struct(data_type):
        fields = list(data_type)
        return lambda value: {each.name: _one(value.get(each.name), each.type) for each in fields}
    if data_type.num_fields == 1:
        inner = data_type.value_type
        return lambda value: [_one(each, inner) for each in value]
    if data_type.equals(pa.month_day_nano_interval()):
        return pa.MonthDayNano
    return lambda value: value


def _one(value: Any, data_type: pa.DataType) -> Any:
    if value is None:
        return None
    if _types.is_temporal(data_type) and not data_type.equals(pa.month_day_nano_interval()):
        return _array([value], data_type)[0]
    if _types.is_dictionary(data_type):
        return _one(value, data_type.value_type)
    return _converter(data_type)(value)


def _is_bytes(data_type: pa.DataType) -> bool:
    return bool(
        _types.is_binary(data_type)
        or _types.is_large_binary(data_type)
        or _types.is_fixed_size_binary(data_type)
    )
