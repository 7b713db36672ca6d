from __future__ import annotations

import pyarrow as pa

from millstream.operators.row_bytes import row_bytes


def test_strings_are_measured_and_other_values_count_as_their_type() -> None:
    words = pa.array(["before", "", None, "four", "behind"]).slice(1, 3)
    assert row_bytes([words], 3).tolist() == [4, 4, 8]
    assert row_bytes([words.cast(pa.large_binary())], 3).tolist() == [8, 8, 12]
    numbers = pa.array([1, 2, None], pa.int64())
    assert row_bytes([numbers, words, pa.array([True] * 3)], 3).tolist() == [13, 13, 17]


def test_lists_count_as_the_average_and_dictionaries_as_their_indices() -> None:
    lists = pa.array([[1] * 100, []], pa.list_(pa.int8()))
    first, second = row_bytes([lists], 2).tolist()
    assert first == second
    assert 50 <= first <= 60
    words = pa.array(["a long word", "a long word"]).dictionary_encode()
    assert row_bytes([words], 2).tolist() == [4, 4]


def test_no_columns_and_no_rows() -> None:
    assert row_bytes([], 2).tolist() == [0, 0]
    assert row_bytes([pa.array([], pa.list_(pa.int8()))], 0).tolist() == []
