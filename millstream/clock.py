"""Time, injected: the only module that reads the machine's clock.

Everything else takes a `Clock`, so that tests and the simulated host decide what time it is.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from millstream.reality import require_reality


class Alarm(Protocol):
    """Calls a function at a set time; made by `Clock.alarm`.

    Attributes
    ----------
    guard
        Excludes the function's thread from what lies in the same guard; may be entered again.
    """

    @property
    def guard(self) -> AbstractContextManager[Any]:
        """What excludes the function from what is done inside it."""
        ...

    def set(self, delay_us: int) -> None:
        """Call the function once, `delay_us` from now, or when it was set to before that."""
        ...

    def close(self) -> None:
        """Call it no more; where it is being called, return when that is over."""
        ...


class Clock(Protocol):
    """What the platform needs to know of time."""

    def now_us(self) -> int:
        """Return the wall clock: microseconds since 1970-01-01 UTC; may jump."""
        ...

    def monotonic_us(self) -> int:
        """Return microseconds that never go back; for intervals and time-outs only."""
        ...

    def sleep_us(self, duration_us: int) -> None:
        """Let `duration_us` microseconds pass."""
        ...

    def alarm(self, action: Callable[[], None]) -> Alarm:
        """Return an alarm that calls `action`, which must not raise."""
        ...


class SystemClock:
    """The machine's clock. Cannot be constructed during a simulated run."""

    def __init__(self) -> None:
        require_reality("SystemClock")

    def now_us(self) -> int:
        """Return the wall clock in microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        """Return the monotonic clock in microseconds."""
        return time.monotonic_ns() // 1_000

    def sleep_us(self, duration_us: int) -> None:
        """Block the calling thread for `duration_us` microseconds."""
        time.sleep(duration_us / 1_000_000)

    def alarm(self, action: Callable[[], None]) -> ThreadAlarm:
        """Return an alarm with a thread of its own, which begins when it is first set."""
        return ThreadAlarm(action)


class ThreadAlarm:
    """An alarm that rings in a thread of its own; see `Alarm`."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.guard = threading.RLock()
        self._action = action
        self._changed = threading.Condition(threading.Lock())
        self._due_s: float | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def set(self, delay_us: int) -> None:
        """Ring once, `delay_us` from now, or when it was set to before that."""
        due_s = time.monotonic() + delay_us / 1_000_000
        with self._changed:
            if self._closed or (self._due_s is not None and self._due_s <= due_s):
                return
            self._due_s = due_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Ring no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed:
                    left_s = None if self._due_s is None else self._due_s - time.monotonic()
                    if left_s is not None and left_s <= 0:
                        break
                    self._changed.wait(left_s)
                if self._closed:
                    return
                self._due_s = None
            self._action()


class ManualClock:
    """A clock that stands still until it is moved.

    Examples
    --------
    >>> clock = ManualClock(start_us=5)
    >>> clock.sleep_us(10)
    >>> clock.now_us()
    15
    """

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self._wall_us = start_us
        self._monotonic_us = 0
        self._alarms: weakref.WeakSet[ManualAlarm] = weakref.WeakSet()

    def now_us(self) -> int:
        """Return the wall clock as it was set."""
        return self._wall_us

    def monotonic_us(self) -> int:
        """Return how far the clock was moved forward since it was made."""
        return self._monotonic_us

    def sleep_us(self, duration_us: int) -> None:
        """Move both clocks forward by `duration_us`; alarms ring, in order, nothing blocks."""
        end_us = self._monotonic_us + duration_us
        while True:
            due = [each for each in self._alarms if (each.due_us or end_us + 1) <= end_us]
            if not due:
                break
            first = min(due, key=lambda each: each.due_us or 0)
            self._move_to(max(first.due_us or 0, self._monotonic_us))
            first.ring()
        self._move_to(max(end_us, self._monotonic_us))

    def alarm(self, action: Callable[[], None]) -> ManualAlarm:
        """Return an alarm that rings while the clock is moved."""
        alarm = ManualAlarm(self, action)
        self._alarms.add(alarm)
        return alarm

    def _move_to(self, monotonic_us: int) -> None:
        self._wall_us += monotonic_us - self._monotonic_us
        self._monotonic_us = monotonic_us

    def jump_us(self, delta_us: int) -> None:
        """Move the wall clock alone, as a correction of the machine's clock does."""
        self._wall_us += delta_us


class ManualAlarm:
    """An alarm of a `ManualClock`; see `Alarm`.

    Attributes
    ----------
    due_us
        When it rings, by the monotonic clock; `None`: it is not set.
    """

    def __init__(self, clock: ManualClock, action: Callable[[], None]) -> None:
        self.guard: AbstractContextManager[Any] = nullcontext()
        self.due_us: int | None = None
        self._clock = clock
        self._action = action
        self._closed = False

    def set(self, delay_us: int) -> None:
        """Ring once, `delay_us` from now, or when it was set to before that."""
        due_us = self._clock.monotonic_us() + max(delay_us, 1)
        if not self._closed and (self.due_us is None or due_us < self.due_us):
            self.due_us = due_us

    def ring(self) -> None:
        """Call the function."""
        self.due_us = None
        self._action()

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self.due_us = None
