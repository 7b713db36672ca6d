"""Whether and when a failed attempt is followed by another: decisions, without a clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from millstream.errors import (
    CheckpointError,
    FencedError,
    JobCancelledError,
    OptionError,
    UserError,
)


@dataclass(frozen=True, slots=True)
class RestartStrategy:
    """Exponential delays, up to a number of failures within a time.

    Parameters
    ----------
    failures_max
        With one more failure than these within `window_us`, the job has failed; 0: never restart.
    window_us
        Failures that are longer ago do not count.
    first_delay_us, max_delay_us
        The delay before a restart; it doubles with every failure that counts.

    Raises
    ------
    OptionError
        When a value is negative.
    """

    failures_max: int = 10
    window_us: int = 600_000_000
    first_delay_us: int = 100_000
    max_delay_us: int = 30_000_000

    def __post_init__(self) -> None:
        if min(self.failures_max, self.window_us, self.first_delay_us, self.max_delay_us) < 0:
            message = f"a restart strategy has no negative numbers; got {self}"
            raise OptionError(message)


_FINAL = (UserError, CheckpointError, FencedError, JobCancelledError)


class Restarts:
    """The failures of a run so far.

    Examples
    --------
    >>> restarts = Restarts(RestartStrategy(failures_max=2, first_delay_us=100))
    >>> error = OSError("lost")
    >>> [restarts.on_failure(error, now_us) for now_us in (0, 1, 2)]
    [100, 200, None]
    """

    def __init__(self, strategy: RestartStrategy) -> None:
        self._strategy = strategy
        self._failed_us: deque[int] = deque()

    def on_failure(self, error: BaseException, now_us: int) -> int | None:
        """Return how long to wait before the next attempt, or `None`: the job has failed.

        What the user must put right, state that cannot be restored, a cancelled run, and an
        attempt that was superseded, are not tried again.
        """
        if isinstance(error, _FINAL) or not isinstance(error, Exception):
            return None
        strategy = self._strategy
        self._failed_us.append(now_us)
        while self._failed_us[0] < now_us - strategy.window_us:
            self._failed_us.popleft()
        failures = len(self._failed_us)
        if failures > strategy.failures_max:
            return None
        return int(min(strategy.first_delay_us * 2 ** (failures - 1), strategy.max_delay_us))
