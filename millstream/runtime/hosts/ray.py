"""The Ray host: one actor a worker, one actor that coordinates; the only module that imports Ray.

    driver ── submits ──▶ coordinator actor ── polls ──▶ worker actor 0 … P−1
                               │                            ╚══ Arrow Flight ══╝
                               └─ manifests, epochs ─▶ the log's control topic

Ray places and supervises processes. It decides nothing of a job's data: who may write is
decided by the log, and a call may be carried out twice or although it raised.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from millstream.errors import JobCancelledError, JobError, MillstreamError, OptionError
from millstream.log import Log
from millstream.runtime.attempt import Compiler
from millstream.runtime.control import JobState
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.handle import JobHandle
from millstream.runtime.hosts.drive import drive
from millstream.runtime.hosts.local import stop_on_signal
from millstream.runtime.hosts.publisher import OnStatus, RunPublisher
from millstream.runtime.hosts.remote_fleet import (
    Patience,
    RemoteFleet,
    WorkerDeadError,
    WorkerUnreachableError,
)
from millstream.runtime.hosts.worker_actor import Answer, WorkerProcess
from millstream.runtime.messages import Command
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import Restarts, RestartStrategy
from millstream.runtime.result import RunResult, WorkerResult, run_result
from millstream.runtime.worker import WorkerPlan

NAMESPACE = "millstream"
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Of a Ray that is started here: rows never pass through it."""
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1_000,
    "health_check_failure_threshold": 3,
}
"""Ray's own would take up to a minute to notice a node that is gone."""
STATUS_INTERVAL_S = 0.2
LINGER_S = 10.0
"""For how long a coordinator whose job is over answers those who still ask."""


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
class Outcome:
    """How a job ended: with a result, or with the error that a driver raises."""

    result: RunResult | None
    error: BaseException | None


def connect(settings: RaySettings) -> None:
    """Connect this process to Ray; start one where no cluster is given.

    Raises
    ------
    OptionError
        When the cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    address = settings.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False}
    if address is None and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        ray.init(
            include_dashboard=settings.dashboard,
            object_store_memory=OBJECT_STORE_BYTES,
            _system_config=HEALTH_CHECKS,
            configure_logging=False,
            **options,
        )
        return
    if not _comes_with_the_job():
        # The cluster's other machines may not have this package, or another version of it.
        options["runtime_env"] = {"py_modules": [str(Path(__file__).resolve().parents[2])]}
    try:
        ray.init(address=address or "auto", **options)
    except (ConnectionError, RuntimeError) as error:
        message = f"no Ray can be reached at {address!r}: {error}; is it running? (ray status)"
        raise OptionError(message) from error


def disconnect() -> None:
    """Disconnect this process; a Ray that it started ends, with all that runs there."""
    ray.shutdown()


def _comes_with_the_job() -> bool:
    """Return `True` iff the working directory of a submitted job holds the package."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return False
    spec = importlib.util.find_spec("millstream")
    return spec is not None and str(spec.origin).startswith(os.getcwd())


class WorkerActor:
    """The actor around a worker; see `WorkerProcess`."""

    def __init__(self, plan: WorkerPlan, log_path: str, token: str) -> None:
        host = ray.util.get_node_ip_address()
        self._process = WorkerProcess(plan, log_path, token, host)

    def location(self) -> str:
        """Return where the other workers send to."""
        return self._process.location()

    def begin(self, locations: Sequence[str]) -> None:
        """Connect to the other workers and start."""
        self._process.begin(locations)

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        """Obey commands and return reports."""
        return self._process.poll(received, commands, wait_s)

    def finish(self) -> WorkerResult | None:
        """Stop, and return what the worker came to."""
        return self._process.finish()


class _RayWorker:
    """A worker actor as its coordinator calls it."""

    def __init__(self, actor: Any, patience: Patience, start_timeout_s: float, cpus: float) -> None:
        self._actor = actor
        self._patience = patience
        self._start_timeout_s = start_timeout_s
        self._cpus = cpus

    def location(self) -> str:
        try:
            return str(_answer(self._actor.location.remote(), self._start_timeout_s))
        except WorkerUnreachableError as error:
            free, total = ray.available_resources(), ray.cluster_resources()
            message = (
                f"Ray found no room for a worker within {self._start_timeout_s:g} s: it needs "
                f"{self._cpus:g} CPU, and of {total.get('CPU', 0):g} there are "
                f"{free.get('CPU', 0):g} free; end other jobs, add nodes, or lower worker_cpus"
            )
            raise JobError(message) from error

    def begin(self, locations: Sequence[str]) -> None:
        _answer(self._actor.begin.remote(locations), self._patience.answer_s)

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        answer: Answer = _answer(
            self._actor.poll.remote(received, commands, wait_s), self._patience.answer_s
        )
        return answer

    def finish(self) -> WorkerResult | None:
        result: WorkerResult | None = _answer(self._actor.finish.remote(), 60.0)
        return result

    def kill(self) -> None:
        with suppress(Exception):  # it may be dead, or Ray itself may be
            ray.kill(self._actor)


def _answer(reference: Any, timeout_s: float) -> Any:
    """Return the result of a call to a worker, with errors as the fleet knows them."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError as error:
        message = f"no answer within {timeout_s:g} s"
        raise WorkerUnreachableError(message) from error
    except ActorUnavailableError as error:
        raise WorkerUnreachableError(str(error)) from error
    except OutOfMemoryError as error:
        message = f"out of memory: {error}"
        raise WorkerDeadError(message) from error
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MillstreamError):
            raise cause from None
        message = f"a call failed: {cause!r}"
        raise WorkerDeadError(message) from error
    except (ActorDiedError, RayActorError) as error:
        raise WorkerDeadError(_why_dead(error)) from error


def _why_dead(error: RayActorError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    return " ".join(telling[:2]) or " ".join(lines[:2])


class CoordinatorActor:
    """Runs a job's attempts, one after another, until it is over.

    It holds nothing that is not in its arguments or in the log's control topic: killed at any
    moment, Ray makes it anew and it goes on.

    Parameters
    ----------
    job
        The compiler of the job, pickled with the user's code.
    log_path, options, settings
        Of the run.
    name
        The job's.
    """

    def __init__(
        self, job: bytes, log_path: str, options: RunOptions, settings: RaySettings, name: str
    ) -> None:
        self._compile_for: Compiler = cloudpickle.loads(job)
        self._log_path = log_path
        self._options = options
        self._settings = settings
        self._name = name
        self._outcome: Outcome | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coordinate", daemon=True)
        self._thread.start()

    def outcome(self, wait_s: float) -> Outcome | None:
        """Return how the job ended, waiting a while; `None`: it has not."""
        self._over.wait(wait_s)
        return self._outcome

    def pid(self) -> int:
        """Return the process that coordinates."""
        return os.getpid()

    def _run(self) -> None:
        try:
            self._outcome = self._run_attempts()
        except BaseException as error:
            self._outcome = Outcome(None, _portable(error))
        self._over.set()
        if self._settings.detach:
            # Nobody else would end it.
            threading.Event().wait(LINGER_S)
            with suppress(Exception):
                ray.kill(ray.get_runtime_context().current_actor)

    def _run_attempts(self) -> Outcome:
        log = Log(self._log_path)
        restarts = Restarts(self._settings.restart)
        publisher: RunPublisher | None = None
        failures = 0
        while True:
            coordinator = Coordinator(self._compile_for, log, self._options)
            if publisher is None:
                publisher = RunPublisher(
                    log,
                    self._name,
                    self._options.run,
                    host="ray",
                    parallelism=coordinator.graph.parallelism,
                    on_status=None,
                    visible=coordinator.durable,
                )
            try:
                workers = self._run_attempt(coordinator, log, publisher)
            except BaseException as error:
                delay_us = restarts.on_failure(error, log.clock.monotonic_us())
                if delay_us is None:
                    cancelled = isinstance(error, JobCancelledError)
                    state = JobState.CANCELLED if cancelled else JobState.FAILED
                    publisher.over(state, error)
                    return Outcome(None, _portable(error))
                failures += 1
                publisher.over(JobState.RESTARTING, error)
                log.clock.sleep_us(delay_us)
                continue
            publisher.over(JobState.FINISHED if coordinator.finished else JobState.STOPPED)
            result = run_result(
                workers,
                checkpoints=publisher.record.checkpoints,
                restored=coordinator.restored,
                finished=coordinator.finished,
                restarts=failures,
            )
            return Outcome(result, None)

    def _run_attempt(
        self, coordinator: Coordinator, log: Log, publisher: RunPublisher
    ) -> list[WorkerResult]:
        """Run one attempt to its end; its workers are dead when it failed."""
        plans = coordinator.start()
        fleet = self._fleet(plans, log)
        try:
            fleet.start()
            publisher.attempt(coordinator, fleet.statuses)
            drive(coordinator, fleet, log.clock, publisher.on_turn)
            return fleet.results()
        finally:
            fleet.kill()
            coordinator.close()

    def _fleet(self, plans: Sequence[WorkerPlan], log: Log) -> RemoteFleet:
        settings = self._settings
        cpus = settings.worker_cpus
        if cpus is None:
            total = ray.cluster_resources().get("CPU", 1.0)
            cpus = min(1.0, int(100 * total / len(plans)) / 100)
        actor = ray.remote(WorkerActor).options(
            num_cpus=cpus, max_restarts=0, max_task_retries=0, max_concurrency=4
        )
        token = secrets.token_hex(16)
        actors = [actor.remote(plan, self._log_path, token) for plan in plans]
        workers = [
            _RayWorker(each, settings.patience, settings.start_timeout_s, cpus) for each in actors
        ]
        return RemoteFleet(workers, log.clock, settings.patience)


def _portable(error: BaseException) -> BaseException:
    """Return an error that another process can read."""
    if isinstance(error, MillstreamError):
        return error
    return JobError(f"{type(error).__name__}: {error}")


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
            record = handle.status()
            if on_status is not None and record.workers:
                on_status(record.workers)
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
    graph = compile_for(options.parallelism)
    actor = start_job(compile_for, log, options, settings, graph.name)

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


def start_job(
    compile_for: Compiler, log: Log, options: RunOptions, settings: RaySettings, name: str
) -> Any:
    """Start a job's coordinator on Ray and return its actor.

    Raises
    ------
    OptionError
        When Ray cannot be reached, or the job cannot be sent to it.
    """
    connect(settings)
    try:
        job = cloudpickle.dumps(compile_for)
    except Exception as error:
        message = f"job {name!r} cannot be sent to Ray: {error}; what it holds must be picklable"
        raise OptionError(message) from error
    actor = ray.remote(CoordinatorActor).options(
        name=f"{name}-{options.run}",
        namespace=NAMESPACE,
        lifetime="detached" if settings.detach else None,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=8,
    )
    return actor.remote(job, log.path, options, settings, name)


def wait_for(actor: Any, wait_s: float) -> Outcome | None:
    """Return how the job of a coordinator ended, waiting a while; `None`: it has not.

    A coordinator that died is made anew by Ray: that is no end.
    """
    try:
        outcome: Outcome | None = ray.get(actor.outcome.remote(wait_s), timeout=wait_s + 5)
    except (GetTimeoutError, RayActorError):
        return None
    return outcome
