"""The processes of a job's workers on Ray: an actor a worker, used again while it lives."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from millstream.errors import JobError, MillstreamError, ResourcesError
from millstream.runtime.hosts.ray_actors import WorkerActors
from millstream.runtime.hosts.remote_fleet import (
    Patience,
    RemoteWorker,
    WorkerDeadError,
    WorkerUnreachableError,
)
from millstream.runtime.hosts.worker_actor import Answer
from millstream.runtime.messages import Command
from millstream.runtime.result import WorkerResult
from millstream.runtime.worker import WorkerPlan

FINISH_TIMEOUT_S = 60.0
LOOK_S = 0.2
"""Between two looks at a process that is to start."""
SOON_S = 2.0
"""How long a process may take to start before that is worth a word."""


class _RayWorker:
    """A worker actor as its coordinator calls it in one attempt."""

    def __init__(self, actor: Any, attempt: int, location: str, patience: Patience) -> None:
        self.location = location
        self._actor = actor
        self._attempt = attempt
        self._answer_s = patience.answer_s

    def begin(self, locations: Sequence[str]) -> None:
        _answer(self._actor.begin.remote(self._attempt, locations), self._answer_s)

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        call = self._actor.poll.remote(self._attempt, received, commands, wait_s)
        answer: Answer = _answer(call, self._answer_s)
        return answer

    def finish(self) -> WorkerResult | None:
        call = self._actor.finish.remote(self._attempt)
        result: WorkerResult | None = _answer(call, FINISH_TIMEOUT_S)
        return result


class RayPool:
    """An actor a worker; those that live are used again by the next attempt.

    Parameters
    ----------
    actors
        The workers' actors; some may be starting already.
    log_path
        The run's log.
    start_timeout_s
        How long to wait for Ray to find room for the workers.
    patience
        When a worker is given up.
    """

    def __init__(
        self, actors: WorkerActors, log_path: str, start_timeout_s: float, patience: Patience
    ) -> None:
        self._actors = actors
        self._log_path = log_path
        self._start_timeout_s = start_timeout_s
        self._patience = patience
        self._known: set[int] = set()
        """Workers whose processes have started."""
        self._attempt = 0

    def workers(
        self, plans: Sequence[WorkerPlan], failed: int | None, on_wait: Callable[[str], None]
    ) -> list[RemoteWorker]:
        """Return a worker for each plan, in an actor of its own; see `WorkerPool`."""
        if failed is not None:
            self._end(failed)
        deadline_s = time.monotonic() + self._start_timeout_s
        while True:
            try:
                return self._workers(plans, deadline_s, on_wait)
            except _ShrunkError:
                self.close()

    def close(self) -> None:
        """End all actors."""
        self._known.clear()
        self._actors.end_all()

    def _workers(
        self, plans: Sequence[WorkerPlan], deadline_s: float, on_wait: Callable[[str], None]
    ) -> list[RemoteWorker]:
        self._attempt += 1
        self._actors.start(len(plans))
        token = secrets.token_hex(16)
        known = set(self._known)
        calls = [self._prepare(plan, token) for plan in plans]
        workers: list[RemoteWorker] = []
        for plan, call in zip(plans, calls, strict=True):
            location = self._again(call) if plan.worker in known else None
            if location is None:
                first = call
                if plan.worker in known:
                    self._end(plan.worker)
                    self._actors.start(len(plans))
                    first = self._prepare(plan, token)
                location = self._started(plan, first, deadline_s, on_wait)
                self._known.add(plan.worker)
            actor = self._actors[plan.worker]
            workers.append(_RayWorker(actor, self._attempt, location, self._patience))
        return workers

    def _prepare(self, plan: WorkerPlan, token: str) -> Any:
        return self._actors[plan.worker].prepare.remote(self._attempt, plan, self._log_path, token)

    def _again(self, call: Any) -> str | None:
        """Return where a worker that was used before is now; `None`: it is not to be had."""
        try:
            return str(_answer(call, self._patience.answer_s))
        except (WorkerDeadError, WorkerUnreachableError):
            return None

    def _started(
        self, plan: WorkerPlan, call: Any, deadline_s: float, on_wait: Callable[[str], None]
    ) -> str:
        """Return where a worker is, whose process Ray is to start."""
        count, start_s = plan.graph.parallelism, time.monotonic()
        while not ray.wait([call], timeout=LOOK_S)[0]:
            if self._actors.share(count) < self._actors.cpus:
                # A node is gone: what its workers asked for is nowhere to be had any more.
                raise _ShrunkError
            room = self._room(count)
            if time.monotonic() >= deadline_s:
                message = (
                    f"Ray started no process for worker {plan.worker} within "
                    f"{self._start_timeout_s:g} s: {room}; end other jobs, add nodes, run "
                    "fewer workers (parallelism), or let each ask for less (worker_cpus)"
                )
                raise ResourcesError(message)
            if time.monotonic() - start_s >= SOON_S:
                on_wait(f"Ray is to start worker {plan.worker}: {room}")
        try:
            return str(_answer(call, self._patience.answer_s))
        except (WorkerDeadError, WorkerUnreachableError) as error:
            message = f"worker {plan.worker} died when it was started: {error}"
            raise JobError(message, worker=plan.worker) from error

    def _room(self, count: int) -> str:
        free, total = ray.available_resources(), ray.cluster_resources()
        return (
            f"each of {count} needs {self._actors.cpus:g} CPU, and of {total.get('CPU', 0):g} "
            f"there are {free.get('CPU', 0):g} free"
        )

    def _end(self, worker: int) -> None:
        self._known.discard(worker)
        self._actors.end(worker)


class _ShrunkError(Exception):
    """Raised when the cluster has fewer processors than its workers asked for."""


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
        raise WorkerDeadError(why_out_of_memory(error)) from error
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MillstreamError):
            raise cause from None
        message = f"a call failed: {cause!r}"
        raise WorkerDeadError(message) from error
    except (ActorDiedError, RayActorError) as error:
        raise WorkerDeadError(why_dead(error)) from error


def why_dead(error: RayActorError) -> str:
    """Return why a process died, in a line: Ray adds advice about Ray."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    said = " ".join(telling[:2]) or " ".join(lines[:2])
    said, *advice = _ADVICE.split(said, maxsplit=1)
    # Ray learns of it as the end of a connection, and so knows no more than this.
    return said.rstrip() + (f" {_KILLED}" if advice else "")


def why_out_of_memory(error: OutOfMemoryError) -> str:
    """Return why Ray killed a process: the first of fifty lines, and what can be done."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (
        f"out of memory: {said}; run fewer workers a machine (parallelism), or give it more memory"
    )


_ADVICE = re.compile(r"(?:Some common causes include|There are some potential root causes)")
_KILLED = "(it was killed, maybe by the kernel for want of memory: see dmesg; or it crashed)"
