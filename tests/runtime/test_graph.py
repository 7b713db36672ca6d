"""Who owns which keys and partitions: everything has one owner, and both ways of it agree."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.key_hash import key_groups
from millstream.operators.exchange import split_by_worker
from millstream.runtime.graph import KEY_GROUPS, key_groups_of_worker, partitions_of_worker

PARALLELISM = st.integers(1, 64) | st.sampled_from([1000, 4095, 4096])


@given(PARALLELISM)
def test_every_key_group_has_one_owner(parallelism: int) -> None:
    owned = [key_groups_of_worker(worker, parallelism) for worker in range(parallelism)]
    assert [group for groups in owned for group in groups] == list(range(KEY_GROUPS))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


@given(st.integers(1, 64), st.integers(1, 64))
def test_every_partition_has_one_reader(parallelism: int, partitions: int) -> None:
    read = [partitions_of_worker(each, parallelism, partitions) for each in range(parallelism)]
    assert [index for indices in read for index in indices] == list(range(partitions))


@pytest.mark.parametrize("parallelism", [1, 2, 3, 4, 7])
def test_rows_are_sent_to_the_worker_that_owns_their_state(parallelism: int) -> None:
    rows = pa.record_batch({"key": pa.array([f"key {each}" for each in range(200)])})
    for worker, piece in enumerate(split_by_worker(rows, ["key"], parallelism)):
        owned = key_groups_of_worker(worker, parallelism)
        assert set(key_groups([piece.column("key")]).tolist()) <= set(owned)


@pytest.mark.parametrize(("partitions", "parallelism"), [(4, 1), (4, 2), (4, 4), (6, 3)])
def test_where_workers_share_partitions_evenly_a_keys_partition_and_state_have_one_worker(
    partitions: int, parallelism: int
) -> None:
    for worker in range(parallelism):
        owned = key_groups_of_worker(worker, parallelism)
        read = partitions_of_worker(worker, parallelism, partitions)
        for group in range(KEY_GROUPS):
            assert (group in owned) == (group * partitions // KEY_GROUPS in read)
