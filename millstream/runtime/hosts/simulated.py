"""The simulated host: one seed plays all processes, channels, the disk and the clock.

    seed ─▶ which event is next: a worker steps │ a message arrives │ a command or a report does
                                 a part is persisted │ the coordinator ticks │ something dies

It runs the workers, the log and the coordinator of production on one thread. Each worker and
the coordinator of an attempt are processes of their own, which may die between any two effects
on the disk, or inside one; the power may be cut; a new attempt may begin while the old one is
alive and goes on. The same seed gives the same run, to the last event.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b

from millstream.clock import ManualClock
from millstream.errors import FencedError, LogError
from millstream.reality import simulation
from millstream.runtime.attempt import Compiler
from millstream.runtime.coordinator import Phase
from millstream.runtime.hosts.simulated_attempt import SimulatedAttempt
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk, SimulatedCrash

EVENTS_MAX = 400_000
"""A run that has not ended by then never will."""
CLOCK_STEP_US = 5_000
EFFECTS_MAX = 60
"""A process that is to die inside an effect does so within this many."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong.

    Parameters
    ----------
    count_max
        How many faults a run has at the most; after that it is left in peace.
    every_events
        One fault in so many events, on average.
    kill, crash, power_cut, takeover, disk_error
        Weights. The whole attempt dies between two effects; one process dies inside an effect;
        the power is cut; a new attempt begins beside the old one; the disk refuses a call.
    kill_at
        The attempt that is there at this event dies just before it.
    crash_in
        A process of the first attempt, and the effect inside which it dies.
    """

    count_max: int = 4
    every_events: int = 150
    kill: int = 1
    crash: int = 4
    power_cut: int = 1
    takeover: int = 2
    disk_error: int = 1
    kill_at: int | None = None
    crash_in: tuple[str, int] | None = None


NO_FAULTS = Faults(count_max=0)


@dataclass(frozen=True, slots=True)
class Restore:
    """An attempt that went on where another one had ended.

    Parameters
    ----------
    checkpoint
        That it went on from; `None`: from the beginning.
    completed
        Checkpoints that the job had completed by then, in all attempts.
    rows_replayed
        Rows that the attempt before it had read behind its newest checkpoint.
    rows_in_channels
        Rows that were on their way between its workers.
    """

    checkpoint: int | None
    completed: int
    rows_replayed: int
    rows_in_channels: int


@dataclass(slots=True)
class SimulationReport:
    """What a simulated run came to.

    Parameters
    ----------
    restores
        One for each attempt but the first.
    faults
        What went wrong, in order.
    fenced
        How often an old attempt was refused by the log.
    effects
        How often each process of the last attempt reached the disk.
    trace
        A hash over every event: equal for equal seeds.
    """

    restores: list[Restore] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    fenced: int = 0
    checkpoints: int = 0
    events: int = 0
    effects: dict[str, int] = field(default_factory=dict)
    trace: str = ""


def run_simulated(
    compile_for: Compiler,
    disk: MemoryDisk,
    path: str,
    options: RunOptions,
    *,
    seed: int,
    faults: Faults = NO_FAULTS,
    clock: ManualClock | None = None,
    watch: Callable[[], None] | None = None,
) -> SimulationReport:
    """Run a bounded job to its end, whatever dies.

    Parameters
    ----------
    compile_for
        Compiles the job for a parallelism.
    disk, path
        Where the log is.
    options
        Of the run, which must be bounded.
    seed
        Decides everything.
    faults
        What goes wrong.
    watch
        Called now and then, as a reader of the output would look at it.
    """
    assert options.until == "end", "a simulated run has an end"
    host = _Host(compile_for, disk, path, options, seed, faults, clock or ManualClock(), watch)
    with simulation():
        return host.run()


class _Host:
    """Chooses what happens next, and makes things go wrong."""

    def __init__(
        self,
        compile_for: Compiler,
        disk: MemoryDisk,
        path: str,
        options: RunOptions,
        seed: int,
        faults: Faults,
        clock: ManualClock,
        watch: Callable[[], None] | None,
    ) -> None:
        self._compile_for = compile_for
        self._disk = disk
        self._path = path
        self._options = options
        self._faults = faults
        self._clock = clock
        self._watch = watch
        self._random = random.Random(seed)
        self._trace = blake2b(digest_size=16)
        self._report = SimulationReport()
        self._attempts = 0
        self._current: SimulatedAttempt | None = None
        self._old: list[SimulatedAttempt] = []

    def run(self) -> SimulationReport:
        """Run to the end and report."""
        report = self._report
        while True:
            report.events += 1
            assert report.events < EVENTS_MAX, f"no end in sight; faults were {report.faults}"
            if self._current is None:
                self._begin()
                continue
            if self._current.coordinator.phase is Phase.DONE:
                if not self._current.coordinator.moves_on:
                    break
                with suppress(LogError, OSError, SimulatedCrash):
                    self._current.coordinator.close()
                self._leave(self._current, alive=False)
                self._note_event("seam")
                continue
            if report.events == self._faults.kill_at:
                self._leave(self._current, alive=False)
                self._note("kill")
            elif self._is_due():
                self._go_wrong(self._current)
            elif self._old and self._chance(3):
                self._happen(self._random.choice(self._old))
            else:
                self._happen(self._current)
        self._current.coordinator.close()
        report.checkpoints += self._current.coordinator.checkpoints
        report.effects = {name: each.effects for name, each in self._current.storages.items()}
        report.trace = self._trace.hexdigest()
        return report

    def _is_due(self) -> bool:
        """Return `True` iff a fault is due now."""
        left = self._faults.count_max - len(self._report.faults)
        return left > 0 and self._chance(self._faults.every_events)

    def _chance(self, one_in: int) -> bool:
        return self._random.randrange(one_in) == 0

    def _begin(self) -> None:
        """Begin a new attempt; it may die while it does."""
        self._attempts += 1
        attempt = SimulatedAttempt(
            self._attempts, self._compile_for, self._disk, self._path, self._options, self._clock
        )
        planned = self._faults.crash_in
        if planned is not None and self._attempts == 1:
            process, effect = planned
            attempt.storage(process).crash_after(effect)
            self._note(f"crash of {process}")
        left = self._faults.count_max - len(self._report.faults)
        if left > 0 and self._chance(4):
            attempt.storage("coordinator").crash_after(1 + self._random.randrange(EFFECTS_MAX))
            self._note(f"attempt {self._attempts} is to die at its start")
        try:
            attempt.begin()
        except SimulatedCrash:
            return
        self._current = attempt
        self._note_event(f"attempt {self._attempts}")
        if self._report.restores and self._attempts > 1:
            last = self._report.restores.pop()
            self._report.restores.append(
                Restore(
                    attempt.coordinator.restored,
                    last.completed,
                    last.rows_replayed,
                    last.rows_in_channels,
                )
            )

    def _happen(self, attempt: SimulatedAttempt) -> None:
        """Let one event of an attempt happen, or time pass, or somebody look."""
        choice = self._random.randrange(48)
        if choice < 2:
            self._clock.sleep_us(self._random.randrange(CLOCK_STEP_US))
            return
        if choice == 2 and self._watch is not None:
            self._watch()
            return
        events = attempt.events()
        name, event = events[self._random.randrange(len(events))]
        self._note_event(f"{attempt.number} {name}")
        try:
            event()
        except SimulatedCrash:
            self._died(attempt)
        except FencedError:
            assert attempt is not self._current, "the newest attempt is never fenced"
            self._report.fenced += 1
            attempt.kill()
            self._old.remove(attempt)
        except (LogError, OSError):
            assert attempt.disk_refuses, "the log failed, and nothing was wrong with the disk"
            self._failed(attempt)

    def _go_wrong(self, attempt: SimulatedAttempt) -> None:
        faults, chosen = self._faults, self._random
        weights = {
            "kill": faults.kill,
            "crash": faults.crash,
            "power cut": faults.power_cut,
            "takeover": faults.takeover,
            "disk error": faults.disk_error,
        }
        kind = chosen.choices(list(weights), list(weights.values()))[0]
        match kind:
            case "kill":
                self._leave(attempt, alive=False)
            case "crash":
                process = chosen.choice(sorted(attempt.storages))
                attempt.storages[process].crash_after(1 + chosen.randrange(EFFECTS_MAX))
                kind = f"crash of {process}"
            case "power cut":
                while self._old:
                    self._old.pop().kill()
                self._leave(attempt, alive=False)
                self._disk.power_cut()
            case "takeover":
                self._leave(attempt, alive=True)
            case "disk error":
                process = chosen.choice(sorted(attempt.storages))
                operation = chosen.choice(["append", "sync", "write_file"])
                error = OSError(errno.ENOSPC, "No space left on device")
                attempt.storages[process].fail(operation, error, chosen.randrange(4))
                attempt.disk_refuses = True
                kind = f"{operation} refused to {process}"
        self._note(kind)

    def _died(self, attempt: SimulatedAttempt) -> None:
        """Begin anew after a process died, beside what is left of the attempt or without it."""
        if attempt is self._current:
            self._leave(attempt, alive=self._chance(2))
        # What is left of an old attempt goes on; its dead process dies again whenever touched.
        elif self._chance(8):
            attempt.kill()
            self._old.remove(attempt)

    def _failed(self, attempt: SimulatedAttempt) -> None:
        """End an attempt in good order, as far as the disk lets it."""
        with suppress(LogError, OSError, SimulatedCrash):
            attempt.coordinator.close()
        if attempt is self._current:
            self._leave(attempt, alive=False)
        else:
            attempt.kill()
            self._old.remove(attempt)

    def _leave(self, attempt: SimulatedAttempt, *, alive: bool) -> None:
        self._report.checkpoints += attempt.coordinator.checkpoints
        self._report.restores.append(
            Restore(
                None, self._report.checkpoints, attempt.rows_replayed(), attempt.rows_in_channels()
            )
        )
        if alive:
            self._old.append(attempt)
        else:
            attempt.kill()
        self._current = None

    def _note(self, fault: str) -> None:
        self._report.faults.append(fault)
        self._note_event(fault)

    def _note_event(self, name: str) -> None:
        self._trace.update(name.encode())
