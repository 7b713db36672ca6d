"""Strings as words: equal iff the strings are, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.operators.kernels.strings import INTERNED, UNKNOWN
from millstream.operators.string_interner import StringInterner

NO_NULL = np.zeros(0, dtype=np.bool_)
STRINGS = st.binary(max_size=20) | st.sampled_from(
    [b"", b"\0", b"\0" * 7, b"\0" * 8, b"\xff" * 7, b"\xff" * 8, b"abcdefg", b"abcdefgh"]
)


def words_of(interner: StringInterner, array: pa.Array, insert: bool = True) -> list[int]:
    words = np.full(len(array), 12345, dtype=np.uint64)
    interner.write_words(array, words, insert)
    return [int(word) for word in words]


@given(batches=st.lists(st.lists(st.none() | STRINGS, max_size=20), max_size=4))
def test_words_are_equal_iff_the_strings_are(batches: list[list[bytes | None]]) -> None:
    interner = StringInterner()
    word_of: dict[bytes, int] = {}
    for batch in batches:
        array = pa.array([b"before", *batch], pa.binary()).slice(1)
        words = words_of(interner, array)
        for string, word in zip(batch, words, strict=True):
            if string is None:
                assert word == 0
                continue
            assert word_of.setdefault(string, word) == word
            assert (word >= INTERNED) == (len(string) > 7)
        null = np.array([each is None for each in batch], dtype=np.bool_)
        for type_ in (pa.binary(), pa.large_binary()):
            back = interner.strings(np.array(words, dtype=np.uint64), type_, null)
            back.validate(full=True)
            assert back.type == type_
            assert back.to_pylist() == batch
    assert len(set(word_of.values())) == len(word_of)
    assert len(interner) == sum(len(string) > 7 for string in word_of)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()], ids=str)
def test_texts_come_back_as_their_type(type_: pa.DataType) -> None:
    interner = StringInterner()
    texts = ["", "ünï", "a longer text", None]
    words = np.array(words_of(interner, pa.array(texts, type_)), dtype=np.uint64)
    back = interner.strings(words, type_, np.array([False, False, False, True]))
    assert back.equals(pa.array(texts, type_))


def test_unknown_strings_are_not_kept_without_leave() -> None:
    interner = StringInterner()
    known = words_of(interner, pa.array(["a string that is kept", "short"]))
    asked = pa.array(["a string that is not", "a string that is kept", "short", None])
    assert words_of(interner, asked, insert=False) == [int(UNKNOWN), *known, 0]
    assert len(interner) == 1


def test_many_and_large_strings_make_room() -> None:
    interner = StringInterner()
    strings = [f"string number {n}" for n in range(20_000)] + ["x" * n for n in (10**5, 10**6)]
    words = words_of(interner, pa.array(strings))
    assert len(set(words)) == len(strings) == len(interner)
    assert words_of(interner, pa.array(strings)) == words
    back = interner.strings(np.array(words, np.uint64), pa.string(), np.zeros(len(words), np.bool_))
    assert back.to_pylist() == strings
    assert interner.size_bytes > 1_100_000


def test_no_strings_have_no_words() -> None:
    interner = StringInterner()
    assert words_of(interner, pa.array([], pa.string())) == []
    nothing = np.empty(0, dtype=np.uint64)
    assert len(interner.strings(nothing, pa.string(), NO_NULL)) == 0
