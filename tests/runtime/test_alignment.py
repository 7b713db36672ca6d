"""Alignment: an input waits from its barrier to the last one."""

from __future__ import annotations

import pytest

from millstream.runtime.alignment import Alignment


def test_the_last_barrier_aligns() -> None:
    #   a ──1────────2──
    #   b ─────1──2─────
    alignment = Alignment(["a", "b"])
    assert alignment.checkpoint is None
    assert not alignment.on_barrier("a", 1)
    assert (alignment.is_held("a"), alignment.is_held("b")) == (True, False)
    assert alignment.checkpoint == 1
    assert alignment.on_barrier("b", 1)
    alignment.release()
    assert (alignment.is_held("a"), alignment.is_held("b")) == (False, False)
    assert alignment.checkpoint is None
    assert not alignment.on_barrier("b", 2)
    assert alignment.on_barrier("a", 2)


def test_one_input_is_aligned_by_its_own_barrier() -> None:
    assert Alignment(["a"]).on_barrier("a", 7)


@pytest.mark.parametrize(
    ("barriers", "reason"),
    [
        ([("c", 1)], "no input"),
        ([("a", 1), ("a", 1)], "two barriers"),
        ([("a", 1), ("b", 2)], "one checkpoint at a time"),
    ],
)
def test_what_breaks_the_protocol_is_noticed(barriers: list[tuple[str, int]], reason: str) -> None:
    alignment = Alignment(["a", "b", "d"])
    *before, last = barriers
    for each in before:
        alignment.on_barrier(*each)
    with pytest.raises(AssertionError, match=reason):
        alignment.on_barrier(*last)
