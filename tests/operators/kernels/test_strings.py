"""The loops over strings, at the ends of their buffers."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.operators.kernels import strings as kernels
from millstream.operators.kernels.key_index import FREE

ALL = np.zeros(0, dtype=np.bool_)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@given(strings=st.lists(st.binary(max_size=9), max_size=12))
def test_a_short_string_is_its_length_and_bytes(dtype: type, strings: list[bytes]) -> None:
    # The last string ends where the buffer ends, so nothing may be read behind it.
    ends = list(accumulate((len(each) for each in strings), initial=0))
    offsets: npt.NDArray[Any] = np.array(ends, dtype=dtype)
    data = np.frombuffer(b"".join(strings), dtype=np.uint8).copy()
    words = np.zeros(len(strings), dtype=np.uint64)
    long_rows = np.zeros(len(strings), dtype=np.int64)
    count = kernels.string_words(offsets, data, ALL, words, long_rows)
    assert long_rows[:count].tolist() == [i for i, each in enumerate(strings) if len(each) > 7]
    for string, word in zip(strings, words, strict=True):
        if len(string) <= 7:
            assert int(word) == int.from_bytes(string, "little") | len(string) << 56


@given(
    strings=st.lists(st.binary(min_size=8, max_size=30), min_size=1, max_size=10),
    size=st.sampled_from([4, 8, 64]),
    room=st.sampled_from([40, 1000]),
)
def test_interning_stops_where_there_is_no_room(strings: list[bytes], size: int, room: int) -> None:
    offsets = np.cumsum([0, *map(len, strings)]).astype(np.int32)
    data = np.frombuffer(b"".join(strings), dtype=np.uint8).copy()
    table = np.full(size, FREE, dtype=np.uint64)
    ends = np.zeros(6, dtype=np.uint64)
    arena = np.zeros(room, dtype=np.uint8)
    words = np.zeros(len(strings), dtype=np.uint64)
    rows = np.arange(len(strings))
    done = kernels.intern_strings(
        rows, 0, True, offsets, data, table, ends, arena, words
    )  # fmt: skip
    known: list[bytes] = []
    for string in strings:
        if string in known:
            continue
        full = len(known) == min(4, size // 2) or len(b"".join(known)) + len(string) > room
        if full:
            break
        known.append(string)
    assert done == next((i for i, each in enumerate(strings) if each not in known), len(strings))
    assert int(ends[0]) == len(known)
    assert arena[: int(ends[1 + len(known)])].tobytes() == b"".join(known)
    for string, word in zip(strings[:done], words[:done], strict=True):
        assert int(word) == known.index(string) | int(kernels.INTERNED)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inner functions as Python runs them, which notices a read behind the end."""
    for name in ("read_word", "read_tail", "same_bytes", "hash_bytes"):
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)


@pytest.mark.usefixtures("plain")
@given(before=st.binary(max_size=9), string=st.binary(max_size=30), after=st.binary(max_size=9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_read_up_to_the_end_and_no_further(
    before: bytes, string: bytes, after: bytes
) -> None:
    data = np.frombuffer(before + string + after, dtype=np.uint8)
    start, size = np.uint64(len(before)), np.uint64(len(string))
    rest = np.uint64(len(string) % 8)
    tail = kernels.read_tail(data, start + size - rest, rest)
    assert int(tail) == int.from_bytes(string[len(string) - int(rest) :], "little")
    with np.errstate(over="ignore"):
        alone = kernels.hash_bytes(np.frombuffer(string, dtype=np.uint8), np.uint64(0), size)
        assert kernels.hash_bytes(data, start, size) == alone < 2**31


@pytest.mark.usefixtures("plain")
@given(left=st.binary(max_size=20), place=st.integers(0, 19), flip=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_other_byte_is_another_string(left: bytes, place: int, flip: int) -> None:
    # Strings whose hashes agree are compared byte by byte.
    right = bytearray(left)
    if place < len(left):
        right[place] ^= flip
    arrays = [np.frombuffer(bytes(each), dtype=np.uint8) for each in (left, right)]
    zero = np.uint64(0)
    same = kernels.same_bytes(arrays[0], zero, arrays[1], zero, np.uint64(len(left)))
    assert same == (left == bytes(right))


def test_decoding_says_first_how_much_it_needs() -> None:
    ends = np.array([1, 0, 9], dtype=np.uint64)
    arena = np.frombuffer(b"long text", dtype=np.uint8).copy()
    short = int.from_bytes(b"ab", "little") | 2 << 56
    words = np.array([short, kernels.INTERNED, 0], dtype=np.uint64)
    offsets = np.full(4, -1, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.uint8)
    assert kernels.decode_strings(words, ends, arena, offsets, nothing) == 11
    assert offsets.tolist() == [0, 2, 11, 11]
    data = np.zeros(11, dtype=np.uint8)
    kernels.decode_strings(words, ends, arena, offsets, data)
    assert data.tobytes() == b"ablong text"
