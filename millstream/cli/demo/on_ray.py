"""The demo's job on Ray, with one of its workers killed in the middle, and told as it happens."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from rich.padding import Padding

from millstream.cli.console import notes
from millstream.cli.run import RunSettings, run_script
from millstream.clock import SystemClock
from millstream.dsl.execution import ray_host
from millstream.log import Log
from millstream.runtime.control import JobControl, JobRecord, JobState

BATCH_ROWS = 128
"""Few rows at a time, so that the job lasts long enough to be hit in the middle."""
CHECKPOINT_INTERVAL = "200ms"
CHECKPOINTS_BEFORE = 2
POLL_US = 20_000


def run_and_kill(directory: Path, script: Path, arguments: list[str], name: str) -> None:
    """Run the job on Ray, one actor a partition, and kill one of its workers on the way."""
    ray = ray_host()
    _say("starting Ray on this machine …")
    ray.connect(ray.RaySettings())
    killer = WorkerKiller(Log(directory), name)
    killer.start()
    settings = RunSettings(
        name=name,
        until="end",
        checkpoint_interval=CHECKPOINT_INTERVAL,
        batch_rows=BATCH_ROWS,
        log=str(directory),
        on="ray",
    )
    try:
        run_script(script, arguments, settings)
    finally:
        killer.stop()
        ray.disconnect()


def _say(text: str) -> None:
    """Print a line, above the live view where there is one."""
    notes.print(Padding(text, (0, 0, 0, 3)), markup=False)


class WorkerKiller:
    """Watches a job, kills a worker when it is well under way, and tells what follows.

    Parameters
    ----------
    log, job
        Which job.
    """

    def __init__(self, log: Log, job: str) -> None:
        self._control = JobControl(log, job)
        self._clock = SystemClock()
        self._over = threading.Event()
        self._killed_us = 0
        self._before: JobRecord | None = None
        self._attempt = 1
        self._told = False
        self._thread = threading.Thread(target=self._watch, name="killer", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        over = False
        while not over and not self._told:
            over = self._over.is_set()  # then once more: the job's end may be the first news
            record = self._control.record()
            if record is not None:
                if self._before is None:
                    self._kill_when_under_way(record)
                else:
                    self._tell(record, self._before)
            self._clock.sleep_us(POLL_US)

    def _kill_when_under_way(self, record: JobRecord) -> None:
        lag = sum(each.lag_rows for each in record.workers)
        ready = record.checkpoints >= CHECKPOINTS_BEFORE and lag > 0
        if record.state is not JobState.RUNNING or not ready:
            return
        victim = record.workers[-1]
        os.kill(victim.pid, signal.SIGKILL)
        self._killed_us = self._clock.monotonic_us()
        self._before = record
        _say(
            f"worker {victim.worker} (process {victim.pid}) was killed with SIGKILL after "
            f"checkpoint {record.checkpoint}, with {lag:,} rows still to be read"
        )

    def _tell(self, record: JobRecord, before: JobRecord) -> None:
        elapsed_s = (self._clock.monotonic_us() - self._killed_us) / 1e6
        if record.state is JobState.RESTARTING and self._attempt == before.attempt:
            self._attempt = 0
            _say(f"{elapsed_s:.1f} s later its coordinator had noticed")
        if record.attempt > before.attempt and record.checkpoint != record.restored:
            _say(
                f"attempt {record.attempt} went on from checkpoint {record.restored} with a new "
                f"process in its place; {elapsed_s:.1f} s after the kill its first results were "
                "committed"
            )
            self._told = True
