"""Waits at the server for more to read, as `millstream.log.bells` does in mapped memory."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.clock import Clock
from millstream.log.bells import DECISIONS, Bells, Rung
from millstream.log.remote import messages as m
from millstream.log.remote.remote_partition import Asker

LOOK_AGAIN_US = 250_000
"""How often a waiting reader asks again, though nothing came."""


class RemoteBells(Bells):
    """The bells of a served log: a number stands for a partition that was waited for once."""

    def __init__(self, asker: Asker, clock: Clock) -> None:
        self._asker = asker
        self._clock = clock
        self._places = [m.Place(m.CONTROL, 0)]
        assert DECISIONS == 0, "the control topic is the first"

    def number(self, place: m.Place) -> int:
        """Return the bell of a partition."""
        if place not in self._places:
            self._places.append(place)
        return self._places.index(place)

    def listen(self, bells: Sequence[int]) -> Rung:
        """Return how far the partitions can be read; more than that ends a `wait` for it."""
        # That a group's state has changed, its member asks the server by itself.
        known = [each for each in dict.fromkeys(bells) if each < len(self._places)]
        ends = self._await(known, [-1] * len(known), 0) if known else ()
        return list(zip(known, ends, strict=True))

    def wait(self, rung: Rung, timeout_us: int) -> bool:
        """Return when one of the partitions can be read further, or the time is over.

        Returns after `LOOK_AGAIN_US` at the latest: a group's member has to be heard.
        """
        timeout_us = min(timeout_us, LOOK_AGAIN_US)
        if not rung:
            self._clock.sleep_us(timeout_us)
            return False
        known = [end for _, end in rung]
        return list(self._await([bell for bell, _ in rung], known, timeout_us)) != known

    def ring(self, bell: int) -> None:
        """Do nothing: the server rings."""

    def _await(self, bells: Sequence[int], ends: Sequence[int], timeout_us: int) -> Sequence[int]:
        places = tuple(self._places[each] for each in bells)
        request = m.AwaitEnds(places, tuple(ends), timeout_us)
        return self._asker.ask(request, m.Offsets, more_s=request.timeout_us / 1e6).offsets
