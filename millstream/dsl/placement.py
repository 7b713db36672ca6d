"""What a job asks of Ray: processors for each worker, and how long it waits for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from millstream.dsl.run_context import RunOverrides
from millstream.dsl.windows import duration_option
from millstream.errors import OptionError

CPUS_STEP = 0.0001
"""Ray counts processors in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What Ray is asked for; in this process it means nothing.

    Parameters
    ----------
    worker_cpus
        Processors of each worker; `None`: one, or an even share of fewer.
    start_timeout_s
        How long to wait for room for the workers.
    """

    worker_cpus: float | None = None
    start_timeout_s: float = 60.0


def checked_placement(
    worker_cpus: float | None,
    start_timeout: str | timedelta,
    overrides: RunOverrides,
    host: Literal["local", "ray"],
    location: str,
) -> Placement:
    """Return what Ray is asked for: options from outside before the script's own.

    Raises
    ------
    OptionError
        When an option cannot be used as given. A script may run here or there, and its own do
        no harm; from outside they are meant for the run at hand.
    """
    outside = overrides.worker_cpus is not None or overrides.start_timeout_us is not None
    if outside and host == "local":
        message = (
            f"{location}: --worker-cpus and --start-timeout are for a job on Ray, and this one "
            "runs in this process; give --on ray too, or leave them out"
        )
        raise OptionError(message)
    cpus = checked_worker_cpus(worker_cpus, location)
    timeout_us = start_timeout_us(start_timeout, location)
    if overrides.worker_cpus is not None:
        cpus = overrides.worker_cpus
    if overrides.start_timeout_us is not None:
        timeout_us = overrides.start_timeout_us
    return Placement(cpus, timeout_us / 1e6)


def checked_worker_cpus(worker_cpus: float | None, location: str) -> float | None:
    """Return how many processors a worker asks for; raises `OptionError` where it cannot."""
    if worker_cpus is None:
        return None
    is_number = isinstance(worker_cpus, int | float) and not isinstance(worker_cpus, bool)
    if is_number and math.isfinite(worker_cpus) and worker_cpus >= 0:
        steps = worker_cpus / CPUS_STEP
        if math.isclose(steps, round(steps), rel_tol=1e-9):
            return float(worker_cpus)
    message = (
        f"{location}: worker_cpus is a number of processors, 0 or more, e.g. 0.5; "
        f"got {worker_cpus!r}"
    )
    raise OptionError(message)


def start_timeout_us(start_timeout: str | timedelta, location: str) -> int:
    """Return how long to wait for room; raises `OptionError` where that is no time."""
    timeout_us = duration_option("start_timeout", start_timeout, location)
    if timeout_us == 0:
        message = f"{location}: start_timeout must be more than 0; got {start_timeout!r}"
        raise OptionError(message)
    return timeout_us
