from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.frame_header import Damage, FrameHeader
from millstream.log.index import STRIDE, SegmentIndex

Frames = list[tuple[int, int, int]]
"""Row count, size and largest time of each."""

frames = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from([64, 640, STRIDE - 64, STRIDE, 3 * STRIDE]),
        st.integers(-50, 50),
    ),
    min_size=1,
    max_size=40,
)


def build(some: Frames, base: int = 100) -> tuple[SegmentIndex, list[tuple[int, int, int, int]]]:
    """The index, and (position, base offset, end offset, time) of each frame."""
    index = SegmentIndex(base, 77, base, 320)
    placed = []
    for count, size, time in some:
        header = FrameHeader(size, index.end_offset, count, time, 0, 0, 0, 0, 0, 0, 0)
        placed.append((index.size_bytes, header.base_offset, header.end_offset, time))
        index.add(header)
    return index, placed


@given(frames)
def test_an_entry_is_at_or_before_the_row_and_near_it(some: Frames) -> None:
    index, placed = build(some)
    for position, base, end, _ in placed:
        for offset in range(base, end):
            at, start = index.before_offset(offset)
            assert (at, start) in {(each[0], each[1]) for each in placed}
            assert start <= offset
            assert 0 <= position - at < STRIDE


@given(frames, st.integers(-60, 60))
def test_an_entry_is_before_the_first_frame_that_reaches_the_time(some: Frames, time: int) -> None:
    index, placed = build(some)
    first = next((each for each in placed if each[3] >= time), None)
    found = index.before_time(time)
    if first is None:
        assert found is None
    else:
        assert found is not None
        assert 0 <= first[0] - found[0] < STRIDE


@given(frames)
def test_the_file_says_what_the_index_says(some: Frames) -> None:
    index, _ = build(some)
    assert SegmentIndex.try_decode(index.encode()) == index
    copy = index.copy()
    copy.add(FrameHeader(64, index.end_offset, 1, 0, 0, 0, 0, 0, 0, 0, 0))
    assert SegmentIndex.try_decode(index.encode()) == index


@pytest.mark.parametrize("cut", range(1, 132))
def test_a_damaged_file_is_no_index(cut: int) -> None:
    content = build([(1, STRIDE, 5)] * 3)[0].encode()
    assert len(content) == 132
    assert isinstance(SegmentIndex.try_decode(content[:-cut]), Damage)
    assert isinstance(SegmentIndex.try_decode(content + bytes(cut)), Damage)
