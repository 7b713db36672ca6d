"""Work beside the caller: one thread in this process, alive only while there is something to do."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Callable

from millstream.errors import MillstreamError

STOP_TIMEOUT_S = 10.0

Work = Callable[[Callable[[], bool]], None]


class Background:
    """Does pieces of work one after another; any thread may give it some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Work] = {}
        self._thread: threading.Thread | None = None
        self._stopping = False

    def run_later(self, name: str, work: Work) -> None:
        """Do `work` soon; not, where work of that name waits already."""
        with self._lock:
            if self._stopping:
                return
            self._waiting.setdefault(name, work)
            if self._thread is None:
                # A daemon: the process may end, and `stop` sees to it that this is not inside
                # of a piece of work that is told to stop.
                self._thread = threading.Thread(target=self._run, name="millstream", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Tell the work to stop, and wait until it did."""
        with self._lock:
            self._stopping = True
            self._waiting.clear()
            thread = self._thread
        if thread is not None:
            thread.join(STOP_TIMEOUT_S)

    def is_stopping(self) -> bool:
        """Return `True` iff work should end as soon as it can."""
        return self._stopping

    def wait(self) -> None:
        """Return when there is nothing to do."""
        while True:
            with self._lock:
                thread = self._thread
            if thread is None:
                return
            thread.join()

    def _run(self) -> None:
        try:
            while (found := self._next()) is not None:
                name, work = found
                try:
                    work(self.is_stopping)
                except (MillstreamError, OSError) as error:
                    # Nobody waits for it: what is left undone is done the next time.
                    warnings.warn(f"{name}: {error}", RuntimeWarning, stacklevel=1)
        except BaseException:
            with self._lock:
                self._thread = None
            raise

    def _next(self) -> tuple[str, Work] | None:
        """Return what is to be done next; `None`, and the thread is none any more: nothing."""
        with self._lock:
            if not self._waiting:
                self._thread = None
                return None
            name = next(iter(self._waiting))
            return name, self._waiting.pop(name)


_background = Background()
atexit.register(_background.stop)


def _forget() -> None:
    """In a forked child there is no thread, and nothing that was promised to be done."""
    global _background  # the child's own, in place of the parent's
    _background = Background()
    atexit.register(_background.stop)


os.register_at_fork(after_in_child=_forget)


def run_later(name: str, work: Work) -> None:
    """Do `work` soon, in this process's background."""
    _background.run_later(name, work)


def wait_for_background() -> None:
    """Return when this process has nothing to do in the background."""
    _background.wait()
