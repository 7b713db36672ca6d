"""A run as its coordinator on Ray is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.log import Log
from millstream.runtime.attempt import Compiler
from millstream.runtime.hosts.attempts import Attempts
from millstream.runtime.hosts.ray_actors import WorkerActors
from millstream.runtime.hosts.ray_pool import RayPool
from millstream.runtime.hosts.remote_fleet import Patience
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import RestartStrategy


@dataclass(frozen=True, slots=True)
class RaySettings:
    """How a job runs on Ray.

    Parameters
    ----------
    address
        Of a cluster; by default `RAY_ADDRESS`, else a Ray is started on this machine.
    dashboard
        Whether a Ray that is started here has one.
    detach
        Whether the job outlives the process that started it.
    worker_cpus
        Processors that each worker asks Ray for; by default one, or an even share of fewer.
    start_timeout_s
        How long to wait for Ray to find room for the workers.
    patience, restart
        When a worker is given up, and how often an attempt is followed by another.
    """

    address: str | None = None
    dashboard: bool = False
    detach: bool = False
    worker_cpus: float | None = None
    start_timeout_s: float = 60.0
    patience: Patience = field(default_factory=Patience)
    restart: RestartStrategy = field(default_factory=RestartStrategy)


@dataclass(frozen=True, slots=True)
class RayRun:
    """A run, but for the job itself.

    Parameters
    ----------
    log_path, options, settings
        Of the run.
    """

    log_path: str
    options: RunOptions
    settings: RaySettings

    def attempts(self, compile_for: Compiler, actors: WorkerActors) -> Attempts:
        """Return what runs the job, on actors that may have been started already."""
        settings = self.settings
        pool = RayPool(actors, self.log_path, settings.start_timeout_s, settings.patience)
        return Attempts(
            compile_for,
            Log(self.log_path),
            self.options,
            host="ray",
            pool=pool,
            patience=settings.patience,
            strategy=settings.restart,
        )
