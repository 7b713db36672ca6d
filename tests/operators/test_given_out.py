"""How far windows were given out, by key group, through snapshots at any parallelism."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.key_hash import key_groups
from millstream.operators import given_out
from millstream.operators.given_out import GivenOut
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

NEVER = WATERMARK_MIN
KEYS = pa.array([f"key {n}" for n in range(200)])
GROUPS = key_groups([KEYS])


def batch(numbers: list[int]) -> pa.RecordBatch:
    return pa.record_batch({"key": KEYS.take(pa.array(numbers, pa.int64()))})


def until(restored: GivenOut) -> list[int]:
    return restored.until([KEYS], len(KEYS)).tolist()


def restored(texts: list[str | None], owned: range = range(4096)) -> GivenOut:
    again = GivenOut()
    again.restore([each for each in texts if each is not None], owned)
    return again


@given(
    noted=st.lists(st.lists(st.integers(0, 199), min_size=1, max_size=5), max_size=4),
    watermark_us=st.integers(-100, 100),
)
def test_what_lies_between_two_groups_was_given_out_like_them(
    noted: list[list[int]], watermark_us: int
) -> None:
    given = GivenOut()
    for numbers in noted:
        given.note(batch(numbers))
    again = restored([given.to_text(watermark_us, NEVER)])
    groups = [int(GROUPS[number]) for numbers in noted for number in numbers]
    first, last = min(groups, default=4096), max(groups, default=-1)
    expected = [watermark_us if first <= group <= last else NEVER for group in GROUPS]
    assert until(again) == expected
    assert again.restored_max_us == (watermark_us if groups else NEVER)


@given(
    edges=st.sets(st.integers(1, 4095), max_size=5),
    owned=st.tuples(st.integers(0, 4096), st.integers(0, 4096)).map(
        lambda pair: range(*sorted(pair))
    ),
    data=st.data(),
)
def test_parts_are_merged_and_cut(edges: set[int], owned: range, data: st.DataObject) -> None:
    bounds = [0, *sorted(edges), 4096]
    of_group = np.full(4096, NEVER, dtype=np.int64)
    texts: list[str | None] = []
    for first, end in pairwise(bounds):
        watermark_us = data.draw(st.integers(-1000, 1000) | st.just(WATERMARK_MAX))
        part = restored([f"{first}-{end - 1}:{watermark_us}"], range(first, end))
        texts.append(part.to_text(NEVER, NEVER))
        of_group[first:end] = watermark_us
    again = restored(texts, owned)
    mine = [of_group[group] if group in owned else NEVER for group in GROUPS]
    assert until(again) == mine
    # And once more, at a watermark that has come on.
    third = restored([again.to_text(0, NEVER)], owned)
    assert until(third) == [
        max(value, 0) if group in owned else NEVER
        for value, group in zip(mine, GROUPS, strict=True)
    ]


def test_the_latest_holds_of_what_several_say() -> None:
    assert restored(["0-9:5 10-4095:7", "0-4095:6"]).until([], 1).tolist() == [6]
    assert restored(["0-4095:6", "0-9:5"]).until([], 1).tolist() == [6]


def test_nothing_is_written_where_nothing_was_given_out() -> None:
    assert GivenOut().to_text(100, NEVER) is None


def test_nothing_is_written_where_the_end_of_a_run_says_it_all() -> None:
    given = GivenOut()
    given.note(batch([1, 2]))
    assert given.to_text(100, 100) is None
    assert given.to_text(101, 100) is not None


def test_rows_without_a_key_are_of_the_first_group() -> None:
    given = GivenOut()
    given.note(batch([1]).select([]))
    assert given.to_text(7, NEVER) == "0-0:7"
    assert restored(["0-0:7"]).until([], 3).tolist() == [7, 7, 7]


def test_keys_are_not_kept_for_ever() -> None:
    given = GivenOut()
    for _ in range(5):
        given.note(batch(list(range(200)) * 200))
        assert given._pending_rows <= given_out._PENDING_ROWS_MAX
