"""The processes of a job on Ray: the one that coordinates, and those of its workers.

    driver ── starts ──▶ CoordinatorActor ── starts at once ──▶ WorkerActor 0 … P−1
                               │ imports, plans, takes an epoch      │ imports, loads Numba
                               └──────────── prepare, begin ─────────▶

What is imported here comes before everything else in each process. So it is little: the engine
is imported by the actors, all at the same time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle

if TYPE_CHECKING:
    from millstream.runtime.hosts.attempts import Outcome
    from millstream.runtime.hosts.worker_actor import Answer
    from millstream.runtime.messages import Command
    from millstream.runtime.result import WorkerResult
    from millstream.runtime.worker import WorkerPlan

SWITCH_S = 0.000_5
"""A thread that needs the interpreter waits no longer for another one: a tenth of Python's own."""
LINGER_S = 10.0
"""For how long a coordinator whose job is over answers those who still ask."""


class WorkerActor:
    """The process of one worker, in one attempt after another; see `WorkerHost`."""

    def __init__(self) -> None:
        # What a plan needs to be read and carried out, while the coordinator makes it.
        from millstream import jit
        from millstream.runtime.hosts.worker_actor import WorkerHost

        self._host = WorkerHost(ray.util.get_node_ip_address())
        jit.prepare_to_load()
        # At a checkpoint the thread that steps the worker takes turns with those that persist.
        sys.setswitchinterval(SWITCH_S)

    def prepare(self, attempt: int, plan: WorkerPlan, log_path: str, token: str) -> str:
        """Become the worker of a plan, and return where the other workers send to."""
        return self._host.prepare(attempt, plan, log_path, token)

    def begin(self, attempt: int, locations: Sequence[str]) -> None:
        """Connect to the other workers and start."""
        self._host.begin(attempt, locations)

    def poll(
        self, attempt: int, received: int, commands: Sequence[tuple[int, Command]], wait_s: float
    ) -> Answer:
        """Obey commands and return reports."""
        return self._host.poll(attempt, received, commands, wait_s)

    def finish(self, attempt: int) -> WorkerResult | None:
        """Stop, and return what the worker came to."""
        return self._host.finish(attempt)


class WorkerActors:
    """The actors of a job's workers, those that were started and not ended.

    Parameters
    ----------
    worker_cpus
        Processors that each asks Ray for; `None`: one, or an even share of fewer.
    """

    def __init__(self, worker_cpus: float | None) -> None:
        self.cpus = 0.0
        """What each of the actors asked for."""
        self._worker_cpus = worker_cpus
        self._actors: dict[int, Any] = {}

    def __getitem__(self, worker: int) -> Any:
        return self._actors[worker]

    def start(self, count: int) -> None:
        """Start an actor for each of `count` workers that has none."""
        if not self._actors:
            self.cpus = self.share(count)
        for worker in range(count):
            if worker not in self._actors:
                actor = ray.remote(WorkerActor).options(
                    num_cpus=self.cpus, max_restarts=0, max_task_retries=0, max_concurrency=4
                )
                self._actors[worker] = actor.remote()

    def share(self, count: int) -> float:
        """Return how many processors a worker asks for: as it is told, else an even share."""
        if self._worker_cpus is not None:
            return self._worker_cpus
        return even_share(_cpus_of_nodes(), count)

    def end(self, worker: int) -> None:
        """End a worker's actor, if there is one."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with suppress(Exception):  # it may be dead, or Ray itself may be
                ray.kill(actor)

    def end_all(self) -> None:
        """End all actors."""
        for worker in list(self._actors):
            self.end(worker)


def even_share(cpus: Sequence[float], count: int) -> float:
    """Return the most processors, one at most, of which `count` workers can have as many each.

    Parameters
    ----------
    cpus
        Of each node: a worker does not lie across two.

    Examples
    --------
    >>> even_share([2, 1], 3), even_share([2, 1], 4), even_share([2], 3)
    (1.0, 0.66, 0.66)
    """
    # In hundredths: 1.45 processors are five times 0.29, but not in binary fractions.
    nodes = [round(each * 100) for each in cpus]
    shares = {100} | {each // part for each in nodes for part in range(1, count + 1)}
    fitting = (
        share
        for share in shares
        if 0 < share <= 100 and sum(each // share for each in nodes) >= count
    )
    # Where a hundredth is too much for so many, they ask for none; where there are no
    # processors at all, there is something to wait for.
    return max(fitting, default=0 if sum(cpus) else 100) / 100


def _cpus_of_nodes() -> list[float]:
    nodes = [each for each in ray.nodes() if each["Alive"]]
    return [float(each["Resources"].get("CPU", 0)) for each in nodes]


class CoordinatorActor:
    """Runs a job's attempts, one after another, until it is over.

    It holds nothing that is not in its arguments or in the log's control topic: killed at any
    moment, Ray makes it anew and it goes on.

    Parameters
    ----------
    workers, worker_cpus
        How many workers the job begins with, and how many processors each asks for.
    job
        The compiler of the job, pickled with the user's code.
    run
        Its `RayRun`, pickled.
    detached
        Whether nobody else ends this process.
    """

    def __init__(
        self, workers: int, worker_cpus: float | None, job: bytes, run: bytes, detached: bool
    ) -> None:
        actors = WorkerActors(worker_cpus)
        # Their processes start while this one imports what it needs, and plans.
        actors.start(workers)
        compile_for = cloudpickle.loads(job)
        attempts = cloudpickle.loads(run).attempts(compile_for, actors)
        self._detached = detached
        self._outcome: Outcome | None = None
        self._over = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(attempts,), name="coordinate", daemon=True
        )
        thread.start()

    def outcome(self, wait_s: float) -> Outcome | None:
        """Return how the job ended, waiting a while; `None`: it has not."""
        self._over.wait(wait_s)
        return self._outcome

    def pid(self) -> int:
        """Return the process that coordinates."""
        return os.getpid()

    def _run(self, attempts: Any) -> None:
        self._outcome = attempts.run()
        self._over.set()
        if self._detached:
            # Nobody else would end it.
            threading.Event().wait(LINGER_S)
            with suppress(Exception):
                ray.kill(ray.get_runtime_context().current_actor)
