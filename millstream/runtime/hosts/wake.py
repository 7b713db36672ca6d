"""What an idle worker's thread sleeps on: other threads of its process, and the bells of the log.

    no work ─▶ listen ─▶ still no work ─▶ sleep until set, rung, or due ─▶ look where it rang
                 ▲                                                                 │
                 └─────────────────────────────────────────────────────────────────┘

Listening comes before the last look, so that what happens after that look ends the sleep: a bell
is heard if it rings after `listen`, and `set` rings a bell of the worker's own.
"""

from __future__ import annotations

import os
import threading

from millstream.log.bells import Bells, bell_of_group
from millstream.runtime.worker import Worker

LOOK_AGAIN_US = 100_000
"""Every partition is looked at this often: who was to ring may have died …"""
LOOK_SHARE = 32
"""… but no more than one 32nd of the time is spent on it, where there are very many."""


class Wake:
    """Lets one thread rest, and any other end that.

    Parameters
    ----------
    name
        Of who rests; no other of that name rests in this process.
    """

    def __init__(self, name: str) -> None:
        self._event = threading.Event()
        self._own_bell = bell_of_group(f"{os.getpid()} {name}")
        self._bells: Bells | None = None

    def set(self) -> None:
        """End the present rest, or the next one; any thread may."""
        self._event.set()
        # Asked after the event was set: who does not listen to bells by now will see it.
        bells = self._bells
        if bells is not None:
            bells.ring(self._own_bell)

    def clear(self) -> None:
        """Take note of what was set; what is to be done because of it is looked for afterwards."""
        self._event.clear()

    def rest(self, rest_us: int) -> None:
        """Rest until it is set, or for so long."""
        self._event.wait(rest_us / 1e6)

    def rest_on_bells(self, bells: Bells, rung: dict[int, int], rest_us: int) -> list[int]:
        """Rest until it is set, or one of the bells rings, and return which of them rang.

        Parameters
        ----------
        bells
            Of the log.
        rung
            What `Bells.listen` returned.
        rest_us
            The longest rest.
        """
        own = bells.listen([self._own_bell])
        self._bells = bells
        # Asked after it was said that this listens: who sets it from now on rings.
        if not self._event.is_set():
            bells.wait([*rung.items(), *own], rest_us)
        self._bells = None
        return bells.heard(list(rung.items()))


class Rest:
    """How a worker rests that found nothing to do.

    Parameters
    ----------
    worker
        The worker.
    wake
        What its thread rests on.
    """

    def __init__(self, worker: Worker, wake: Wake) -> None:
        self._worker = worker
        self._wake = wake
        self._rung: dict[int, int] = {}
        self._looks_at_all = True
        self._looks_again_us = 0

    def found_work(self, now_us: int) -> None:
        """Take note that there was something to do, as of the monotonic time `now_us`."""
        if now_us >= self._looks_again_us:
            self._look_at_all()

    def take(self, now_us: int, look_us: int, rest_us: int) -> None:
        """Rest; or return at once, for from now on it is known where there is something to do.

        Parameters
        ----------
        now_us
            The monotonic time.
        look_us
            How long the look took that found nothing.
        rest_us
            The longest rest.
        """
        worker, bells = self._worker, self._worker.bells
        if bells is None or not worker.waits_for_log():
            self._wake.rest(min(rest_us, LOOK_AGAIN_US))
            return
        if self._looks_at_all:
            self._looks_at_all = False
            self._looks_again_us = now_us + max(LOOK_AGAIN_US, LOOK_SHARE * look_us)
        if now_us >= self._looks_again_us:
            self._look_at_all()
            return
        unheard = worker.unheard()
        if unheard:
            listened = dict(bells.listen(unheard))
            self._rung.update(listened)
            worker.listened(listened.keys())
            return
        rest_us = min(rest_us, self._looks_again_us - now_us)
        heard = self._wake.rest_on_bells(bells, self._rung, rest_us)
        for each in heard:
            del self._rung[each]
        if heard:
            worker.look_again(set(heard))

    def _look_at_all(self) -> None:
        self._looks_at_all = True
        self._rung.clear()
        self._worker.look_again()
