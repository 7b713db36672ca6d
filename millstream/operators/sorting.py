"""Orders of rows by columns of any type that has one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.operators.arrow_buffers import array_of, storage_dtype, values_of

Int64Array = npt.NDArray[np.int64]

_SIGN_BIT = np.int64(-(2**63))


def is_ordered(type_: pa.DataType) -> bool:
    """Return `True` iff values of `type_` can be compared."""
    return not (pat.is_nested(type_) or pat.is_null(type_) or pat.is_interval(type_))


def sorted_in_slots(places: Int64Array, columns: Sequence[pa.Array]) -> Int64Array:
    """Return the order of rows by `places`, and where these are equal by columns, ascending."""
    keys = [ranks_of([each])[0] for each in columns if is_ordered(each.type)]
    return np.lexsort((*reversed(keys), places))


def ranks_of(columns: Sequence[pa.Array]) -> list[Int64Array]:
    """Return integers for the values of columns of one type, in the order of the values.

    Integers, floats and times have integers of their own, so that ranks of different calls can be
    compared; values of other types (texts, decimals) have ranks among those given. NaN is the
    greatest, −0.0 is 0.0. What a null has is arbitrary.
    """
    type_ = columns[0].type
    if pat.is_boolean(type_) or pat.is_float16(type_):
        columns = [
            each.cast(pa.int8() if pat.is_boolean(type_) else pa.float32()) for each in columns
        ]
    if has_own_ranks(type_):
        return [_integers(each) for each in columns]
    together = pa.concat_arrays([_plain(each) for each in columns])
    ranks = np.asarray(pc.rank(together, tiebreaker="dense")).astype(np.int64)
    return np.split(ranks, np.cumsum([len(each) for each in columns])[:-1])


def has_own_ranks(type_: pa.DataType) -> bool:
    """Return `True` iff `ranks_of` gives a value the same integer at every call."""
    return bool(pat.is_boolean(type_) or pat.is_float16(type_) or storage_dtype(type_) is not None)


def _plain(column: pa.Array) -> pa.Array:
    """Return a column of a type that Arrow ranks."""
    type_ = column.type
    if pat.is_dictionary(type_):
        return _plain(column.dictionary_decode())
    if pat.is_string_view(type_):
        return column.cast(pa.large_string())
    if pat.is_binary_view(type_) or pat.is_fixed_size_binary(type_):
        return column.cast(pa.large_binary())
    return column


def _integers(column: pa.Array) -> Int64Array:
    if column.null_count:
        # What lies under a null must not be read where it may not even be there.
        column = array_of(values_of(column), column.type, None)
    values = values_of(column)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # a signalling NaN is as good as any
            floats = values.astype(np.float64) + 0.0
        floats[np.isnan(floats)] = np.nan
        bits = floats.view(np.int64)
        # Of negative ones the larger bits are the lesser number.
        return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)
    if values.dtype == np.uint64:
        return values.view(np.int64) ^ _SIGN_BIT
    return values.astype(np.int64)
