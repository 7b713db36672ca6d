"""The chains of sessions: whatever the order of rows, sessions are those of the sorted rows."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from millstream.operators.kernels import sessions as kernels

KEYS, ROOM = 3, 200


def expected(rows: list[tuple[int, int, int]]) -> dict[int, list[tuple[int, int]]]:
    """The union of overlapping intervals, by key, ascending."""
    found: dict[int, list[tuple[int, int]]] = {}
    for key, begin, end in sorted(rows):
        own = found.setdefault(key, [])
        if own and begin < own[-1][1]:
            own[-1] = own[-1][0], max(end, own[-1][1])
        else:
            own.append((begin, end))
    return found


@given(
    rows=st.lists(
        st.tuples(st.integers(0, KEYS - 1), st.integers(0, 60), st.integers(1, 9)), max_size=60
    ),
    cuts=st.sets(st.integers(1, 59)),
    room=st.integers(1, ROOM),
)
def test_sessions_do_not_depend_on_the_order_of_rows(
    rows: list[tuple[int, int, int]], cuts: set[int], room: int
) -> None:
    intervals = [(key, begin, begin + size) for key, begin, size in rows]
    head = np.full(KEYS, kernels.NONE)
    arrays = np.zeros((6, room), dtype=np.int64)
    meta = np.zeros(4, dtype=np.int64)
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    of_rows: list[int] = []
    for low, high in itertools.pairwise(edges):
        columns = np.array(intervals[low:high], dtype=np.int64).reshape(-1, 3).T.copy()
        count = high - low
        sessions, added = np.zeros(count, np.int64), np.zeros(count, np.int64)
        merged = np.zeros(count + ROOM, np.int64)
        done, meta[2:] = 0, 0
        while True:
            done = kernels.put_rows(*columns, done, head, *arrays, meta, sessions, added, merged)
            if done == count:
                break
            arrays = np.concatenate([arrays, np.zeros_like(arrays)], axis=1)
        of_rows += sessions.tolist()
    chains = {}
    for key in range(KEYS):
        found = np.zeros(ROOM, dtype=np.int64)
        count = kernels.list_sessions(np.array([key]), head, arrays[2], found)
        chain = found[:count]
        assert (arrays[3, chain] == key).all()
        if count:
            bounds = zip(arrays[0, chain].tolist(), arrays[1, chain].tolist(), strict=True)
            chains[key] = list(bounds)[::-1]
    assert chains == expected(intervals)
    every = np.array(of_rows, dtype=np.int64)
    kernels.follow(every, arrays[4])
    for (key, begin, end), session in zip(intervals, every.tolist(), strict=True):
        assert arrays[3, session] == key
        assert arrays[0, session] <= begin
        assert end <= arrays[1, session]


def test_what_is_taken_out_of_a_chain_leaves_the_rest() -> None:
    head, arrays = np.full(1, kernels.NONE), np.zeros((6, 8), dtype=np.int64)
    meta, out = np.zeros(4, dtype=np.int64), np.zeros((3, 3), dtype=np.int64)
    begins = np.array([0, 10, 20])
    kernels.put_rows(np.zeros(3, np.int64), begins, begins + 5, 0, head, *arrays, meta, *out)
    emptied = np.zeros(3, dtype=np.int64)
    assert kernels.unlink(out[0, 1:2], head, arrays[2], arrays[3], emptied) == 0
    found = np.zeros(3, dtype=np.int64)
    assert kernels.list_sessions(np.zeros(1, np.int64), head, arrays[2], found) == 2
    assert found[:2].tolist() == [out[0, 2], out[0, 0]]
    rest = np.array([out[0, 2], out[0, 0]])
    assert kernels.unlink(rest, head, arrays[2], arrays[3], emptied) == 1
    assert head.tolist() == [kernels.NONE]
