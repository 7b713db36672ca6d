"""Which transactions were committed and aborted: most as ranges, the newest singly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import msgspec

Ranges = tuple[tuple[int, int], ...]
"""Numbers from the first of each pair to the second, both included; rising."""

_ABOVE = float("inf")


class DecidedEpochs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was decided in neighbouring epochs of an owner, the same numbers in each.

    `first` and `last` are both included. What is aborted is named of the owner's present epoch
    only: in all before it everything is aborted that was not committed.
    """

    first: int
    last: int
    committed: Ranges
    aborted: Ranges = ()


class Decided:
    """The outcomes of transactions.

    Parameters
    ----------
    runs
        Of each owner, by its id, what was decided until now; rising epochs.
    """

    def __init__(self, runs: Mapping[int, Sequence[DecidedEpochs]] | None = None) -> None:
        self._runs = dict(runs or {})
        self._firsts = {owner: [each.first for each in runs] for owner, runs in self._runs.items()}
        self._recent: dict[int, dict[int, dict[int, bool]]] = {}

    def add(self, owner_id: int, epoch: int, number: int, *, is_committed: bool) -> None:
        """Take note of a decision; the same again changes nothing."""
        epochs = self._recent.setdefault(owner_id, {})
        epochs.setdefault(epoch, {})[number] = is_committed

    def get(self, owner_id: int, epoch: int, number: int) -> bool | None:
        """Return whether a transaction was committed; `None`: it was not decided."""
        recent = self._recent.get(owner_id, {}).get(epoch)
        if recent is not None and number in recent:
            return recent[number]
        run = self._run_of(owner_id, epoch)
        if run is None:
            return None
        if _has(run.committed, number):
            return True
        return False if _has(run.aborted, number) else None

    def runs_of(self, owner_id: int, present_epoch: int) -> tuple[DecidedEpochs, ...]:
        """Return all that was decided of an owner, in as few runs as there can be."""
        epochs: list[DecidedEpochs] = []
        recent = self._recent.get(owner_id, {})
        known = [each for each in self._runs.get(owner_id, ()) if each.first not in recent]
        added = [self._of_epoch(owner_id, each) for each in recent]
        for each in sorted([*known, *added], key=lambda run: run.first):
            run = each
            if each.last < present_epoch:
                run = DecidedEpochs(each.first, each.last, each.committed)
            before = epochs[-1] if epochs else None
            if (
                before is not None
                # The present epoch may have more decisions: it stays alone.
                and run.last < present_epoch
                and before.last + 1 == run.first
                and before.committed == run.committed
            ):
                epochs[-1] = DecidedEpochs(before.first, run.last, run.committed)
            elif run.committed or run.aborted:
                epochs.append(run)
        return tuple(epochs)

    def _of_epoch(self, owner_id: int, epoch: int) -> DecidedEpochs:
        """Return what was decided in one epoch that has recent decisions."""
        recent = self._recent[owner_id][epoch]
        run = self._run_of(owner_id, epoch)
        assert run is None or run.first == run.last, "only the present epoch gets decisions"
        known = run or DecidedEpochs(epoch, epoch, ())
        committed = (number for number, is_committed in recent.items() if is_committed)
        aborted = (number for number, is_committed in recent.items() if not is_committed)
        return DecidedEpochs(
            epoch, epoch, _joined(known.committed, committed), _joined(known.aborted, aborted)
        )

    def _run_of(self, owner_id: int, epoch: int) -> DecidedEpochs | None:
        index = bisect_right(self._firsts.get(owner_id, ()), epoch) - 1
        if index < 0:
            return None
        run = self._runs[owner_id][index]
        return run if run.last >= epoch else None


def _has(ranges: Ranges, number: int) -> bool:
    index = bisect_right(ranges, (number, _ABOVE)) - 1
    return index >= 0 and ranges[index][1] >= number


def _joined(ranges: Ranges, numbers: Iterable[int]) -> Ranges:
    """Return `ranges` with further numbers, as few as there can be."""
    found: list[tuple[int, int]] = []
    for first, last in sorted([*ranges, *((each, each) for each in numbers)]):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return tuple(found)
