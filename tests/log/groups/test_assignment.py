"""Shares: valid, as even as can be, and those who have something keep it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from millstream.log.groups.assignment import assign
from millstream.log.groups.partition_id import PartitionId, TopicShape

NAMES = ("m1", "m2", "m3", "m4")
subscriptions = st.dictionaries(
    st.sampled_from(NAMES), st.sets(st.sampled_from("abc")), min_size=1, max_size=3
)
counts = st.fixed_dictionaries({name: st.integers(0, 3) for name in "ab"})


def catalog_of(counts: dict[str, int]) -> dict[str, TopicShape]:
    return {name: TopicShape(f"id {name}", 0, count) for name, count in counts.items()}


def may_have(topics: set[str], partition: PartitionId) -> bool:
    return partition.topic_id.removeprefix("id ") in topics


@given(subscriptions, counts, st.randoms(use_true_random=False))
def test_shares_are_as_even_as_they_can_be(subscribed, counts, random) -> None:  # type: ignore[no-untyped-def]
    catalog = catalog_of(counts)
    every = [each for shape in catalog.values() for each in shape.ids()]
    # Any history: what members had or were to have, be it possible now or not.
    owned: dict[str, set[PartitionId]] = {name: set() for name in NAMES}
    wanted: dict[str, set[PartitionId]] = {name: set() for name in NAMES}
    for each in [*every, PartitionId("gone", 0, 0)]:
        owned[random.choice(NAMES)].add(each)
        wanted[random.choice(NAMES)].add(each)
    found = assign(subscribed, catalog, owned, wanted)
    assert set(found) == set(subscribed)
    assert all(may_have(subscribed[name], each) for name, share in found.items() for each in share)
    possible = [each for each in every if any(may_have(has, each) for has in subscribed.values())]
    given_out = sorted(each for share in found.values() for each in share)
    assert given_out == sorted(possible)
    # The least sum of squares over all that could have been.
    choices = [
        [name for name in subscribed if may_have(subscribed[name], each)] for each in possible
    ]
    least = min(
        sum(chosen.count(name) ** 2 for name in subscribed)
        for chosen in itertools.product(*choices)
    )
    assert sum(len(share) ** 2 for share in found.values()) == least


@given(st.integers(1, 6), st.integers(0, 40))
def test_who_joins_gets_its_share_and_nothing_else_moves(members: int, partitions: int) -> None:
    catalog = {"t": TopicShape("1", 0, partitions)}
    before = assign({f"m{i}": "t" for i in range(members)}, catalog, {}, {})
    after = assign({f"m{i}": "t" for i in range(members + 1)}, catalog, before, before)
    for name, share in before.items():
        assert after[name] <= share
    assert len(after[f"m{members}"]) == partitions // (members + 1)
    # And where it leaves again, the others keep what they have.
    again = assign({f"m{i}": "t" for i in range(members)}, catalog, after, after)
    for name in before:
        assert after[name] <= again[name]


def test_what_nobody_has_begun_moves_first() -> None:
    catalog = {"t": TopicShape("1", 0, 4)}
    every = catalog["t"].ids()
    # m1 has all, half was promised to m2, which did not get it yet, when m3 comes.
    wanted = {"m1": every[:2], "m2": every[2:]}
    found = assign({name: "t" for name in ("m1", "m2", "m3")}, catalog, {"m1": every}, wanted)
    assert {*every[:2]} >= found["m1"] > set()
    assert found["m2"] <= {*every[2:]}
    assert [len(share) for share in found.values()] == [2, 1, 1]


def test_many_partitions_take_no_time() -> None:
    catalog = {"t": TopicShape("1", 0, 4096)}
    before = assign({"m1": "t"}, catalog, {}, {})
    after = assign({"m1": "t", "m2": "t"}, catalog, before, before)
    assert [len(share) for share in after.values()] == [2048, 2048]
