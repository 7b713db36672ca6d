"""Workers in this process behind calls that get lost, come twice or late, for tests without Ray."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from millstream.errors import JobError
from millstream.runtime.hosts.remote_fleet import (
    RemoteWorker,
    WorkerDeadError,
    WorkerUnreachableError,
)
from millstream.runtime.hosts.worker_actor import Answer, WorkerHost
from millstream.runtime.messages import Command
from millstream.runtime.result import WorkerResult
from millstream.runtime.worker import WorkerPlan


class Kinds:
    """What can happen to a call, in turns: a few faults are enough for every kind to happen."""

    def __init__(self) -> None:
        self._left: list[str] = []
        self._lock = threading.Lock()

    def next(self, random_: random.Random) -> str:
        """Return one that did not happen in this turn."""
        with self._lock:
            if not self._left:
                self._left = ["lost before", "lost after", "late", "twice"]
                random_.shuffle(self._left)
            return self._left.pop()


class Calls:
    """The way to one process: some calls are lost on it, some answers, some come again later.

    Parameters
    ----------
    random_
        Chooses which.
    faults
        How many calls of a hundred do not simply get through.
    kinds
        What happens to those.
    """

    def __init__(self, host: WorkerHost, random_: random.Random, faults: int, kinds: Kinds) -> None:
        self.host = host
        self.dead = False
        self.faults: list[str] = []
        """What happened to the calls that did not simply get through."""
        self._random = random_
        self._percent = faults
        self._kinds = kinds
        self._on_their_way: list[tuple[str, tuple[Any, ...]]] = []
        self._lock = threading.Lock()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the process, or not, or twice."""
        with self._lock:
            fault = self._fault()
            late = self._late_calls()
        for each, its_arguments in late:
            with suppress(JobError):  # nobody hears what a late call came to
                getattr(self.host, each)(*its_arguments)
        if self.dead:
            message = "its process is gone"
            raise WorkerDeadError(message)
        if fault in {"lost before", "late"}:
            if fault == "late":
                self._on_their_way.append((name, arguments))
            raise WorkerUnreachableError(fault)
        if fault == "twice":
            getattr(self.host, name)(*arguments)
        result = getattr(self.host, name)(*arguments)
        if fault == "lost after":
            raise WorkerUnreachableError(fault)
        return result

    def _fault(self) -> str:
        if self._random.randrange(100) >= self._percent:
            return ""
        fault = self._kinds.next(self._random)
        self.faults.append(fault)
        return fault

    def _late_calls(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Those that come now, before the next one."""
        late = [each for each in self._on_their_way if self._random.randrange(4) == 0]
        self._on_their_way = [each for each in self._on_their_way if each not in late]
        return late


class UnreliableWorker:
    """A worker as its coordinator calls it in one attempt."""

    def __init__(self, calls: Calls, attempt: int, location: str) -> None:
        self.location = location
        self._calls = calls
        self._attempt = attempt

    def begin(self, locations: Sequence[str]) -> None:
        self._calls.call("begin", self._attempt, locations)

    def poll(self, received: int, commands: Sequence[tuple[int, Command]], wait_s: float) -> Answer:
        answer: Answer = self._calls.call("poll", self._attempt, received, commands, wait_s)
        return answer

    def finish(self) -> WorkerResult | None:
        result: WorkerResult | None = self._calls.call("finish", self._attempt)
        return result


class UnreliablePool:
    """Workers in this process; one that is killed answers no more.

    Parameters
    ----------
    log_path
        Their log.
    random_, faults
        Of the calls to them.
    """

    def __init__(self, log_path: str, random_: random.Random, faults: int) -> None:
        self.calls: dict[int, Calls] = {}
        self.attempts = 0
        self.faults: list[str] = []
        self.closed = False
        self.on_ready: Callable[[], None] = lambda: None
        """Called when the workers of an attempt are there."""
        self._log_path = log_path
        self._random = random_
        self._faults = faults
        self._kinds = Kinds()
        self._zombies: list[Calls] = []

    def workers(
        self, plans: Sequence[WorkerPlan], failed: int | None, on_wait: Callable[[str], None]
    ) -> list[RemoteWorker]:
        self.attempts += 1
        if failed is not None and not self.calls[failed].dead:
            self.kill(failed)
        on_wait("it takes its time")
        workers: list[RemoteWorker] = []
        for plan in plans:
            calls = self.calls.get(plan.worker)
            if calls is None or calls.dead:
                chooser = random.Random(self._random.random())
                calls = self.calls[plan.worker] = Calls(
                    WorkerHost("127.0.0.1"), chooser, self._faults, self._kinds
                )
            location = self._prepared(calls, plan)
            workers.append(UnreliableWorker(calls, self.attempts, location))
        self.on_ready()
        return workers

    def kill(self, worker: int) -> None:
        """Let a process be gone: nobody hears of it any more."""
        calls = self.calls[worker]
        self.faults += calls.faults
        calls.dead = True
        end(calls.host)

    def cut_off(self, worker: int) -> None:
        """Let nobody reach a process, which goes on all the same."""
        self.calls[worker].dead = True
        self._zombies.append(self.calls[worker])

    def close(self) -> None:
        for worker, calls in self.calls.items():
            if not calls.dead:
                self.kill(worker)
        for zombie in self._zombies:
            end(zombie.host)
        self.closed = True

    def _prepared(self, calls: Calls, plan: WorkerPlan) -> str:
        while True:
            with suppress(WorkerUnreachableError):
                return str(calls.call("prepare", self.attempts, plan, self._log_path, "the secret"))


def end(host: WorkerHost) -> None:
    """Stop the threads of what would be a process of its own."""
    process = host._process
    if process is not None:
        process.close()
