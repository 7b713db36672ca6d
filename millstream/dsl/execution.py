"""Where a job runs: in this process, or on Ray; in the foreground, or behind a handle."""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from millstream.dsl.memory import Memory
from millstream.dsl.placement import Placement
from millstream.errors import MissingExtraError, OptionError
from millstream.operators.poison import OnError
from millstream.plan import nodes
from millstream.runtime.graph import JobGraph
from millstream.runtime.options import BATCH_ROWS, RunOptions

if TYPE_CHECKING:
    from millstream.log import Log
    from millstream.runtime.attempt import Compiler
    from millstream.runtime.control import JobRecord
    from millstream.runtime.handle import JobHandle
    from millstream.runtime.result import RunResult

Host = Literal["local", "ray"]
OnStatus = Callable[["JobRecord"], None]


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A job with everything that a host must be told.

    Parameters
    ----------
    roots
        The plan's sinks.
    log, name, parallelism, until, fresh, checkpoint_interval_us
        As for `ms.run`.
    placement
        What Ray is asked for.
    follows_partitions
        As for `RunOptions`.
    batch_rows
        The most rows that a source reads at once; `None`: as many as is best.
    on_error
        As for `ms.run`.
    memory
        What state may take of it.
    """

    roots: tuple[nodes.Sink, ...]
    log: Log
    name: str
    parallelism: int
    until: Literal["end"] | None
    fresh: bool
    checkpoint_interval_us: int
    placement: Placement = field(default_factory=Placement)
    batch_rows: int | None = None
    follows_partitions: bool = False
    on_error: OnError = "fail"
    memory: Memory = field(default_factory=Memory)


def checked_host(on: str | None, location: str) -> Host:
    """Return where a job runs: as asked, else on Ray where `RAY_ADDRESS` names a cluster.

    Raises
    ------
    OptionError
        When there is no such host.
    """
    if on is None:
        return "ray" if os.environ.get("RAY_ADDRESS") else "local"
    if on in {"local", "ray"}:
        return "ray" if on == "ray" else "local"
    message = f'{location}: on is "local" or "ray"; got {on!r}'
    raise OptionError(message)


def ray_host() -> Any:
    """Return the module of the Ray host.

    Raises
    ------
    MissingExtraError
        When Ray is not installed; names the extra.
    """
    # Read when Ray is imported. What it says of processes that die, we say, for the job.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
    try:
        return importlib.import_module("millstream.runtime.hosts.ray")
    except ImportError as error:
        message = (
            f"Ray is not installed ({error}); install the extra: pip install 'millstream[ray]', "
            'or run in this process: on="local"'
        )
        raise MissingExtraError(message) from error


def run_prepared(prepared: PreparedRun, host: Host, on_status: OnStatus | None) -> RunResult:
    """Run a job and return when it has ended."""
    # The host is imported when something runs: building and explaining need no engine.
    options = _options(prepared)
    compile_for = _compiler(prepared)
    if host == "ray":
        ray = ray_host()
        settings = _ray_settings(ray, prepared)
        result: RunResult = ray.run_job(compile_for, prepared.log, options, on_status, settings)
        return result
    from millstream.runtime.hosts.local import run_job

    return run_job(compile_for, prepared.log, options, on_status)


def submit_prepared(prepared: PreparedRun, host: Host, *, detach: bool) -> JobHandle:
    """Start a job and return a handle on it; `detach`, on Ray only: it outlives this process."""
    options = _options(prepared)
    compile_for = _compiler(prepared)
    if host == "ray":
        ray = ray_host()
        settings = _ray_settings(ray, prepared, detach=detach)
        handle: JobHandle = ray.submit_job(compile_for, prepared.log, options, settings)
        return handle
    from millstream.runtime.hosts.local import submit_job

    return submit_job(compile_for, prepared.log, options)


def _ray_settings(ray: Any, prepared: PreparedRun, *, detach: bool = False) -> Any:
    placement = prepared.placement
    return ray.RaySettings(
        detach=detach,
        worker_cpus=placement.worker_cpus,
        start_timeout_s=placement.start_timeout_s,
    )


def _options(prepared: PreparedRun) -> RunOptions:
    return RunOptions(
        batch_rows=prepared.batch_rows or BATCH_ROWS,
        parallelism=prepared.parallelism,
        until=prepared.until,
        fresh=prepared.fresh,
        run=uuid.uuid4().hex,
        checkpoint_interval_us=prepared.checkpoint_interval_us,
        follows_partitions=prepared.follows_partitions,
        memory_budget_bytes=prepared.memory.budget_bytes,
        spill_directory=prepared.memory.spill_directory,
    )


def _compiler(prepared: PreparedRun) -> Compiler:
    from millstream.plan.compile import compile_job

    # The worker gets no more than it needs: not the log of this process.
    roots, name, on_error = prepared.roots, prepared.name, prepared.on_error

    def compile_for(parallelism: int, partitions: Mapping[str, int]) -> JobGraph:
        return compile_job(roots, name, parallelism, partitions, on_error)

    return compile_for
