"""The Ray host: one actor a worker, one actor that coordinates.

Ray is imported here, in `ray_actors` and in `ray_pool`, and nowhere else.

    driver ── submits ──▶ coordinator actor ── polls ──▶ worker actor 0 … P−1
                               │                            ╚══ Arrow Flight ══╝
                               └─ manifests, epochs ─▶ the log's control topic

Ray places and supervises processes. It decides nothing of a job's data: who may write is
decided by the log, and a call may be carried out twice or although it raised.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from millstream.errors import OptionError
from millstream.log import Log
from millstream.runtime.attempt import Compiler
from millstream.runtime.graph import JobGraph
from millstream.runtime.handle import JobHandle
from millstream.runtime.hosts.attempts import Outcome
from millstream.runtime.hosts.grpc_probe import why_no_grpc
from millstream.runtime.hosts.local import stop_on_signal
from millstream.runtime.hosts.publisher import OnStatus
from millstream.runtime.hosts.ray_actors import CoordinatorActor
from millstream.runtime.hosts.ray_run import RayRun, RaySettings
from millstream.runtime.hosts.unpicklable import find_unpicklable
from millstream.runtime.options import RunOptions
from millstream.runtime.result import RunResult

NAMESPACE = "millstream"
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Of a Ray that is started here: rows never pass through it."""
RAY_TIMING = {
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1_000,
    "health_check_failure_threshold": 3,
    "kill_worker_timeout_milliseconds": 500,
}
"""Ray's own would take up to a minute to notice a node that is gone, and leave a worker that
stands still its processors for five seconds after it was to end."""
PROBE_TIMEOUT_S = 5.0
"""For how long an address may keep silent."""
STATUS_INTERVAL_S = 0.2
A_BYTE = 1
"""An actor that asks for nothing at all is placed anywhere, whatever its strategy says."""


def connect(settings: RaySettings) -> None:
    """Connect this process to Ray; start one where no cluster is given.

    Raises
    ------
    OptionError
        When the cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    # What Ray says of itself is no part of a job's output, or of its live view.
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    address = settings.address or os.environ.get("RAY_ADDRESS")
    if address in {None, "", "local"} and not _is_submitted():
        # Not one that happens to run on this machine: it may be somebody else's, or gone.
        ray.init(
            address="local",
            include_dashboard=settings.dashboard,
            object_store_memory=OBJECT_STORE_BYTES,
            _system_config=RAY_TIMING,
            **options,
        )
        _keep_token_to_oneself()
        return
    _check_answers(address)
    if not _comes_with_the_job():
        # The cluster's other machines may not have this package, or another version of it.
        options["runtime_env"] = {"py_modules": [str(Path(__file__).resolve().parents[2])]}
    try:
        ray.init(address=address or "auto", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        token = "" if os.environ.get("RAY_AUTH_MODE") == "token" else _TOKEN_HINT
        message = f"no Ray can be reached at {address!r}: {error}; is it running{token}?"
        raise OptionError(message) from error


_TOKEN_HINT = ", or does it ask for a token (RAY_AUTH_MODE=token)"


def _check_answers(address: str | None) -> None:
    """Check that somebody answers at an address; Ray itself would try for two minutes.

    Raises
    ------
    OptionError
        When nobody does, or it is that of the dashboard.
    """
    if (address or "").startswith(("http://", "https://")):
        message = (
            f"no Ray can be reached at {address!r}: that is where jobs are submitted to "
            "(RAY_API_SERVER_ADDRESS); give the cluster's own address, RAY_ADDRESS=auto or "
            "e.g. RAY_ADDRESS=127.0.0.1:6379"
        )
        raise OptionError(message)
    server = (address or "auto").removeprefix("ray://")
    # "auto" is for Ray to look up, and what has a scheme, to understand or refuse.
    if server == "auto" or "://" in server or os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    reason = why_no_grpc(server, PROBE_TIMEOUT_S)
    if reason is not None:
        message = f"no Ray can be reached at {address!r}: {reason}; is it running? (ray status)"
        raise OptionError(message)


def disconnect() -> None:
    """Disconnect this process; a Ray that it started ends, with all that runs there."""
    ray.shutdown()


def _keep_token_to_oneself() -> None:
    """Let nobody else read the token that Ray may just have made: it leaves it to the umask."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    with suppress(OSError):  # there may be none, or it is somebody else's
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _is_submitted() -> bool:
    """Return `True` iff Ray itself started this process: `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _comes_with_the_job() -> bool:
    """Return `True` iff the working directory of a submitted job holds the package."""
    spec = importlib.util.find_spec("millstream")
    if not _is_submitted() or spec is None or spec.origin is None:
        return False
    return Path(spec.origin).is_relative_to(Path.cwd())


def run_job(
    compile_for: Compiler,
    log: Log,
    options: RunOptions,
    on_status: OnStatus | None = None,
    settings: RaySettings | None = None,
) -> RunResult:
    """Run a job on Ray and return when it has ended; see `hosts.local.run_job`.

    Raises
    ------
    OptionError
        When Ray cannot be reached, or the job cannot be sent to it.
    JobError
        When the job failed more often than its restart strategy allows.
    """
    handle = submit_job(compile_for, log, options, settings or RaySettings())
    asked = False

    def stop() -> None:
        nonlocal asked
        asked = True

    result = None
    with stop_on_signal(stop) as check_interrupted:
        while result is None:
            check_interrupted()
            if asked:
                handle.stop()
                asked = False
            result = handle.wait(STATUS_INTERVAL_S)
            if on_status is not None:
                on_status(handle.status())
    return result


def submit_job(
    compile_for: Compiler, log: Log, options: RunOptions, settings: RaySettings
) -> JobHandle:
    """Start a job on Ray and return a handle on it.

    Raises
    ------
    OptionError
        When Ray cannot be reached, or the job cannot be sent to it.
    """
    graph = compile_for(options.parallelism, {})
    # Before Ray is started: that takes seconds, and this is the user's to put right.
    job = pickled(compile_for, graph.name)
    actor = start_job(job, graph, log, options, settings)

    def ended() -> RunResult | None:
        outcome = wait_for(actor, STATUS_INTERVAL_S)
        if outcome is None:
            return None
        with suppress(Exception):  # it may have ended by itself
            ray.kill(actor)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    return JobHandle(log, graph.name, options.run, "ray", graph.parallelism, ended)


def pickled(compile_for: Compiler, name: str) -> bytes:
    """Return a job as it is sent to Ray.

    Raises
    ------
    OptionError
        When something in it cannot be pickled; names that, and where the job holds it.
    """
    try:
        return bytes(cloudpickle.dumps(compile_for))
    except Exception as error:
        culprit = find_unpicklable(compile_for, cloudpickle.dumps)
        where = f"{culprit.location}: " if culprit is not None and culprit.location else ""
        message = (
            f"{where}job {name!r} cannot be sent to Ray, for what it holds cannot be pickled: "
            f'{culprit or error}; leave it out, or run in this process: on="local"'
        )
        raise OptionError(message) from error


def start_job(
    job: bytes, graph: JobGraph, log: Log, options: RunOptions, settings: RaySettings
) -> Any:
    """Start the coordinator of a job, as `pickled`, on Ray and return its actor.

    Raises
    ------
    OptionError
        When Ray cannot be reached.
    """
    connect(settings)
    actor = ray.remote(CoordinatorActor).options(
        name=f"{graph.name}-{options.run}",
        namespace=NAMESPACE,
        lifetime="detached" if settings.detach else None,
        num_cpus=0,
        memory=A_BYTE,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=8,
        # With its driver, where that is no matter: no other node's death is then its own.
        scheduling_strategy=NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        ),
    )
    run = cloudpickle.dumps(RayRun(log.path, options, settings))
    return actor.remote(graph.parallelism, settings.worker_cpus, job, run, settings.detach)


def wait_for(actor: Any, wait_s: float) -> Outcome | None:
    """Return how the job of a coordinator ended, waiting a while; `None`: it has not.

    A coordinator that died is made anew by Ray: that is no end.
    """
    try:
        outcome: Outcome | None = ray.get(actor.outcome.remote(wait_s), timeout=wait_s + 5)
    except (GetTimeoutError, RayActorError):
        return None
    return outcome
