"""How the command line reaches into a script: options that win over those of `ms.run`.

`millstream run job.py --parallelism 2` runs the script as `__main__` inside
`override_run(RunOverrides(parallelism=2))`; `ms.run` and `ms.stream` ask for what is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from millstream.log import Log
    from millstream.runtime.control import JobRecord
    from millstream.runtime.result import RunResult


@dataclass(frozen=True)
class RunOverrides:
    """Options from outside; `None` leaves the script's own.

    Parameters
    ----------
    name, parallelism, until, checkpoint_interval_us
        As for `ms.run`.
    fresh
        Start over; `False` leaves the script's own.
    log
        The log of every stream, table and run that names none itself.
    on
        Where the job runs: `"local"` or `"ray"`.
    worker_cpus, start_timeout_us
        As for `ms.run`; for a job on Ray only.
    batch_rows
        The most rows that a source reads at once.
    on_error, memory_budget_bytes, spill_directory
        As for `ms.run`.
    on_status
        Called with the run's record a few times a second while a job runs.
    results
        The result of each run is appended here, for whoever set the options.
    """

    name: str | None = None
    parallelism: int | None = None
    until: Literal["end"] | None = None
    fresh: bool = False
    checkpoint_interval_us: int | None = None
    log: Log | None = None
    on: Literal["local", "ray"] | None = None
    worker_cpus: float | None = None
    start_timeout_us: int | None = None
    batch_rows: int | None = None
    on_error: Literal["fail", "skip", "dlq"] | None = None
    memory_budget_bytes: int | None = None
    spill_directory: str | None = None
    on_status: Callable[[JobRecord], None] | None = None
    results: list[RunResult] = field(default_factory=list)


_current: ContextVar[RunOverrides | None] = ContextVar("run_overrides", default=None)


def current_overrides() -> RunOverrides:
    """Return what is set here; everything `None` outside of `override_run`."""
    return _current.get() or RunOverrides()


@contextmanager
def override_run(overrides: RunOverrides) -> Iterator[RunOverrides]:
    """Set options for what runs inside the `with` block.

    Examples
    --------
    >>> with override_run(RunOverrides(parallelism=2)):
    ...     current_overrides().parallelism
    2
    """
    token = _current.set(overrides)
    try:
        yield overrides
    finally:
        _current.reset(token)
