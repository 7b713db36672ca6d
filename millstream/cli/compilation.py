"""Whether kernels are being compiled: why a first run shows no rows for some seconds."""

from __future__ import annotations

import sys
from typing import Any

_EVENT = "numba:compile"


class CompilationWatch:
    """Listens to Numba, once a job has woken it, from `start` to `stop`.

    Loading a kernel from the cache on disk is no compilation.
    """

    def __init__(self) -> None:
        self._heard: Any = None

    @property
    def running(self) -> bool:
        """`True` iff some thread compiles now."""
        if self._heard is None:
            return False
        events = [event for _, event in list(self._heard.buffer)]
        return sum(1 if each.is_start else -1 for each in events) > 0

    def start(self) -> None:
        """Listen from now on; does nothing while Numba sleeps, and when called again."""
        numba: Any = sys.modules.get("numba.core.event")
        if self._heard is None and numba is not None:
            self._heard = numba.RecordingListener()
            numba.register(_EVENT, self._heard)

    def stop(self) -> None:
        """Listen no more."""
        numba: Any = sys.modules.get("numba.core.event")
        if self._heard is not None:
            numba.unregister(_EVENT, self._heard)
            self._heard = None
