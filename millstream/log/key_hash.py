"""Hashes keys to key groups and partitions, the same on every machine and for ever.

The hash is of the logical value (FORMAT.md, "Key hash"): int32 5 and int64 5, a dictionary
value and the plain one, -0.0 and 0.0, all NaNs are one key each; null is a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import ExpressionTypeError

KEY_GROUPS = 4096
NULL_HASH = 0xEF46DB3751D8E999
"""The hash of a null: XXH64 of no bytes."""


def key_hashes(columns: Sequence[pa.Array]) -> npt.NDArray[np.uint64]:
    """Return the hash of each row's key.

    Parameters
    ----------
    columns
        Key columns of one length n, at least one; slices are fine.

    Returns
    -------
    numpy.ndarray
        uint64, shape (n,).
    """
    from millstream.log.kernels.key_hash import combine_hashes

    hashes = _column_hashes(columns[0])
    for column in columns[1:]:
        combine_hashes(hashes, _column_hashes(column))
    return hashes


def write_owners(columns: Sequence[pa.Array], count: int, owners: npt.NDArray[np.uint16]) -> None:
    """Write the owner of each row's key, ⌊group·count/4096⌋.

    Parameters
    ----------
    columns
        As for `key_hashes`.
    count
        Number of owners, at most 4096.
    owners
        Gets them, shape (rows,).
    """
    from millstream.log.kernels.key_hash import owners_of_hashes, owners_of_words

    if len(columns) == 1 and not columns[0].null_count:
        words = plain(columns[0])
        if pat.is_primitive(words.type):  # else text
            owners_of_words(np.asarray(words).view(np.uint64), np.uint64(count), owners)
            return
    owners_of_hashes(key_hashes(columns), np.uint64(count), owners)


def key_groups(columns: Sequence[pa.Array]) -> npt.NDArray[np.int32]:
    """Return the key group (hash modulo 4096) of each row's key, int32, shape (n,)."""
    return (key_hashes(columns) & np.uint64(KEY_GROUPS - 1)).astype(np.int32)


def _column_hashes(column: pa.Array) -> npt.NDArray[np.uint64]:
    from millstream.log.kernels.key_hash import hash_numbers, hash_strings

    column = plain(column)
    valid = np.empty(0, dtype=np.bool_)
    if column.null_count:
        valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
    hashes = np.empty(len(column), dtype=np.uint64)
    null = np.uint64(NULL_HASH)
    if pat.is_large_string(column.type) or pat.is_large_binary(column.type):
        _, offset_buffer, data_buffer = column.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[column.offset :][: len(column) + 1]
        data = np.frombuffer(data_buffer if data_buffer is not None else b"", np.uint8)
        hash_strings(offsets, data, valid, null, hashes)
        return hashes
    words = pc.fill_null(column, 0) if column.null_count else column
    hash_numbers(np.asarray(words).view(np.uint64), valid, null, hashes)
    return hashes


def is_key_type(type_: pa.DataType) -> bool:
    """Return `True` iff values of a type can be keys: any but lists, structs and intervals."""
    try:
        plain(pa.nulls(0, type_))
    except ExpressionTypeError:
        return False
    return True


def plain(column: pa.Array) -> pa.Array:
    """Return the canonical form that is hashed: 64-bit words, or large binary or string.

    Raises
    ------
    ExpressionTypeError
        Where values of the column's type cannot be keys.
    """
    type_ = column.type
    if pat.is_dictionary(type_):
        return plain(column.dictionary_decode())
    if pat.is_floating(type_):
        floats = np.array(pc.fill_null(column.cast(pa.float64()), 0.0), dtype=np.float64)
        floats[floats == 0.0] = 0.0
        floats[np.isnan(floats)] = np.nan
        mask = pc.is_null(column).to_numpy(zero_copy_only=False) if column.null_count else None
        return pa.array(floats.view(np.int64), mask=mask)
    if pat.is_uint64(type_) or pat.is_int64(type_):
        return column
    if pat.is_integer(type_) or pat.is_boolean(type_):
        return column.cast(pa.int64())
    if pat.is_timestamp(type_):
        return column.cast(pa.timestamp("us", type_.tz), safe=False).view(pa.int64())
    if pat.is_duration(type_):
        return column.cast(pa.duration("us"), safe=False).view(pa.int64())
    if pat.is_date(type_):
        return column.cast(pa.date32(), safe=False).view(pa.int32()).cast(pa.int64())
    if pat.is_time(type_):
        return column.cast(pa.time64("us"), safe=False).view(pa.int64())
    if pat.is_string(type_) or pat.is_large_string(type_):
        return column.cast(pa.large_string())
    if pat.is_binary(type_) or pat.is_large_binary(type_) or pat.is_fixed_size_binary(type_):
        return column.cast(pa.large_binary())
    if pat.is_string_view(type_) or pat.is_null(type_):
        return column.cast(pa.large_string())
    if pat.is_binary_view(type_):
        return column.cast(pa.large_binary())
    if pat.is_decimal(type_):
        return _decimal_text(column)
    message = f"a value of type {type_} cannot be a key; use its parts, or cast it to string"
    raise ExpressionTypeError(message)


def _decimal_text(column: pa.Array) -> pa.Array:
    """Return decimals as digits that do not end in 0, `E`, and an exponent: 1.50 is `15E-1`."""
    scale = column.type.scale
    is_wide = column.type.bit_width > 128
    decimal, precision = (pa.decimal256, 76) if is_wide else (pa.decimal128, 38)
    # The digits alone: with a scale Arrow writes some values with an exponent, others without.
    whole = column.cast(decimal(precision, scale)).view(decimal(precision, 0))
    digits = whole.cast(pa.large_string())
    short = pc.replace_substring_regex(digits, "0+$", "")
    zeros = pc.subtract(pc.utf8_length(digits), pc.utf8_length(short))
    exponent = pc.subtract(pc.cast(zeros, pa.int64()), scale)
    is_zero = pc.equal(digits, "0")
    return pc.binary_join_element_wise(
        pc.if_else(is_zero, "0", short),
        pc.cast(pc.if_else(is_zero, 0, exponent), pa.large_string()),
        pa.scalar("E", pa.large_string()),
    )
