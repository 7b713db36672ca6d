"""Ranges of decided transactions say what a dictionary of them says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream.log.decided import Decided, DecidedEpochs

OWNER = 7

events = st.lists(
    st.one_of(
        st.just("next epoch"),
        st.just("snapshot"),
        st.tuples(st.integers(1, 6), st.booleans()),
    ),
    max_size=60,
)


def outcome(decided: Decided, epoch: int, number: int, present: int) -> bool | None:
    """The outcome as `Transactions` tells it."""
    found = decided.get(OWNER, epoch, number)
    return False if found is None and epoch < present else found


@given(events)
def test_against_a_dictionary(happened: list[str | tuple[int, bool]]) -> None:
    decided, known, present = Decided(), dict[tuple[int, int], bool](), 1
    for event in happened:
        if event == "next epoch":
            present += 1
        elif event == "snapshot":
            runs = decided.runs_of(OWNER, present)
            assert list(runs) == sorted(runs, key=lambda run: run.first)
            decided = Decided({OWNER: runs})
            assert decided.runs_of(OWNER, present) == runs
        elif not isinstance(event, str):
            number, is_committed = event
            if (present, number) not in known:
                known[present, number] = is_committed
                decided.add(OWNER, present, number, is_committed=is_committed)
    for epoch in range(1, present + 1):
        for number in range(8):
            expected = known.get((epoch, number))
            if expected is None and epoch < present:
                expected = False
            assert outcome(decided, epoch, number, present) is expected


def test_many_are_few_ranges() -> None:
    decided = Decided()
    for number in range(1, 1_001):
        decided.add(1, 1, number, is_committed=True)  # a job's checkpoints
        decided.add(2, number, 1, is_committed=True)  # a script's transactions
    assert decided.runs_of(1, 1) == (DecidedEpochs(1, 1, ((1, 1_000),)),)
    # The present epoch stays alone, for more may be decided in it.
    alone = ((1, 1),)
    assert decided.runs_of(2, 1_000) == (
        DecidedEpochs(1, 999, alone), DecidedEpochs(1_000, 1_000, alone),
    )  # fmt: skip
