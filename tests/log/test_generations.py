"""Which partitions of one generation hold earlier rows of another's keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import OffsetOutOfRangeError
from millstream.log.generations import ClosedGeneration, forebears, partition_groups
from millstream.log.key_hash import KEY_GROUPS
from millstream.log.topic_config import TopicConfig
from tests.log.log_kit import SCHEMA

counts = st.one_of(st.integers(1, 9), st.sampled_from([100, 1000, KEY_GROUPS - 1, KEY_GROUPS]))


@given(counts)
def test_key_groups_are_shared_out(partitions: int) -> None:
    groups = [
        (group, partition)
        for partition in range(partitions)
        for group in partition_groups(partition, partitions)
    ]
    assert groups == [(each, each * partitions // KEY_GROUPS) for each in range(KEY_GROUPS)]


@given(counts, counts, st.data())
def test_forebears_are_the_partitions_that_share_key_groups(
    partitions: int, before: int, data: st.DataObject
) -> None:
    partition = data.draw(st.integers(0, partitions - 1))
    expected = {
        group * before // KEY_GROUPS
        for group in range(KEY_GROUPS)
        if group * partitions // KEY_GROUPS == partition
    }
    assert forebears(partition, partitions, before, keyed=True) == sorted(expected)
    assert forebears(partition, partitions, before, keyed=False) == list(range(before))


def test_a_description_keeps_its_generations() -> None:
    config = TopicConfig("00000001", "t", SCHEMA, 2, (), None, False, "fsync", 1)
    later = config.repartitioned(3, [5, 7], 10).repartitioned(1, [8, 9, 0], 11)
    assert later.generations == [0, 1, 2]
    assert later.older == (ClosedGeneration(0, (5, 7), 10), ClosedGeneration(1, (8, 9, 0), 11))
    assert TopicConfig.from_json(later.to_json(), "there") == later
    assert [later.partitions_of(each) for each in (0, 1, 2)] == [2, 3, 1]
    assert (later.ends_of(1), later.ends_of(2)) == ((8, 9, 0), None)
    assert (later.following(0), later.following(1)) == (1, 2)
    with pytest.raises(OffsetOutOfRangeError, match=r"has the generations \[0, 1, 2\]; got 3"):
        later.ends_of(3)
