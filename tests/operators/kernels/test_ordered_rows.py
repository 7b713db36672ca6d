from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.kernels import ordered_rows as kernels

ENTRY = st.tuples(st.integers(0, 1), st.integers(-2, 2))
SLOTS = 3


@settings(max_examples=50)
@given(
    kept=st.lists(st.lists(ENTRY, max_size=3), min_size=SLOTS, max_size=SLOTS),
    rows=st.lists(st.tuples(st.integers(0, SLOTS - 1), ENTRY), max_size=30),
    limit=st.integers(1, 3),
    blocks=st.integers(0, SLOTS),
)
def test_candidates_are_the_rows_that_are_not_behind_the_best_of_all(
    kept: list[list[tuple[int, int]]],
    rows: list[tuple[int, tuple[int, int]]],
    limit: int,
    blocks: int,
) -> None:
    heads = np.zeros((SLOTS, 3), dtype=np.int64)
    arena = np.zeros((3 * SLOTS, 4), dtype=np.int64)
    for slot, entries in enumerate(kept):
        heads[slot] = 3 * slot, 3, len(entries)
        for index, entry in enumerate(sorted(entries)):
            arena[3 * slot + index, :2] = entry
    slots = np.array([slot for slot, _ in rows], dtype=np.int64)
    words = np.array([entry for _, entry in rows], dtype=np.int64).reshape(-1, 2)
    places, found = np.full(SLOTS, kernels.NONE), np.empty(len(rows), dtype=np.int64)
    best, room = np.empty((blocks * limit, 2), dtype=np.int64), np.empty(SLOTS, dtype=np.int64)
    count = kernels.find_candidates(
        slots, words, limit, heads, arena, places, best, room, np.empty_like(found), found
    )
    wanted, firsts = [], list(dict.fromkeys(slot for slot, _ in rows))
    for row, (slot, entry) in enumerate(rows):
        # For slots that have no room only what was there before counts.
        came = [each for of, each in rows if of == slot] if slot in firsts[:blocks] else []
        if entry <= [*sorted(kept[slot] + came), (9, 9), (9, 9), (9, 9)][limit - 1]:
            wanted.append(row)
    assert found[:count].tolist() == wanted
    assert (places == kernels.NONE).all()


@settings(max_examples=50)
@given(
    slots=st.lists(
        st.tuples(
            *[st.lists(st.integers(0, 5), max_size=4, unique=True)] * 2  # numbers of one slot
        ),
        max_size=4,
    )
)
def test_what_went_and_what_came_are_the_differences(
    slots: list[tuple[list[int], list[int]]],
) -> None:
    before = [[6 * n + each for each in some] for n, (some, _) in enumerate(slots)]
    after = [[6 * n + each for each in some] for n, (_, some) in enumerate(slots)]
    arrays = [
        np.array([each for some in lists for each in some], dtype=np.int64)
        for lists in (before, after)
    ]
    counts = [np.array([len(each) for each in lists], dtype=np.int64) for lists in (before, after)]
    seen = np.zeros(24, dtype=np.bool_)
    numbers, weights = np.empty(64, dtype=np.int64), np.empty(64, dtype=np.int64)
    count = kernels.compare_best(counts[0], arrays[0], counts[1], arrays[1], seen, numbers, weights)
    wanted = []
    for old, new in zip(before, after, strict=True):
        wanted += [(each, -1) for each in old if each not in new]
        wanted += [(each, 1) for each in new if each not in old]
    assert list(zip(numbers[:count].tolist(), weights[:count].tolist(), strict=True)) == wanted
    assert not seen.any()
