"""A handle on a run that goes on elsewhere: in a thread of this process, or on Ray."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from millstream.errors import JobError
from millstream.log import Log
from millstream.runtime.control import JobControl, JobRecord, JobState
from millstream.runtime.result import RunResult

POLL_US = 50_000

Ended = Callable[[], RunResult | None]
"""Returns the result of a run that is over, `None` while it is not; raises why it failed."""


class JobHandle:
    """A job that was submitted; made by `ms.submit`.

    Parameters
    ----------
    log, name, run
        Which run of which job.
    host, parallelism
        Where it runs, and on how many workers.
    ended
        Asks the run itself; `None` where only what it says of itself can be read.
    """

    def __init__(
        self, log: Log, name: str, run: str, host: str, parallelism: int, ended: Ended | None
    ) -> None:
        self.name = name
        self._log = log
        self._run = run
        self._host = host
        self._parallelism = parallelism
        self._ended = ended
        self._control = JobControl(log, name)
        self._started_us = log.clock.now_us()

    def status(self) -> JobRecord:
        """Return how the job is doing: state, checkpoints, workers, operators."""
        record = self._control.record()
        if record is not None and record.run == self._run:
            return record
        return JobRecord(
            job=self.name,
            run=self._run,
            state=JobState.STARTING,
            host=self._host,
            pid=0,
            node="",
            parallelism=self._parallelism,
            started_us=self._started_us,
            updated_us=self._log.clock.now_us(),
        )

    def metrics(self) -> dict[str, object]:
        """Return the status as plain data: dicts, lists, numbers and text."""
        return msgspec.json.decode(msgspec.json.encode(self.status()), type=dict[str, object])

    def stop(self) -> None:
        """Ask the job to end after one more checkpoint; open windows stay open in it.

        Raises
        ------
        OptionError
            When it does not run.
        """
        self._control.ask("stop", run=self._run)

    def drain(self, *, flush: bool = True) -> None:
        """Ask the job to read no further and end.

        Parameters
        ----------
        flush
            Whether windows that are open are given out, or kept for a later run.
        """
        self._control.ask("drain", flush=flush, run=self._run)

    def cancel(self) -> None:
        """Ask the job to end at once; what it had not committed is taken back."""
        self._control.ask("cancel", run=self._run)

    def wait(self, timeout_s: float | None = None) -> RunResult | None:
        """Wait until the job is over, and return its result.

        Returns
        -------
        RunResult or None
            `None` when it is not over in time, or when it was started by another process, which
            has the result.

        Raises
        ------
        JobError
            When it failed or was cancelled.
        """
        clock = self._log.clock
        start_us = clock.monotonic_us()
        while True:
            if self._ended is not None:
                result = self._ended()
                if result is not None:
                    return result
            elif self._is_over():
                return None
            if timeout_s is not None and clock.monotonic_us() - start_us >= timeout_s * 1e6:
                return None
            clock.sleep_us(POLL_US)

    def __repr__(self) -> str:
        return f"job {self.name!r}: {self.status().state.value}"

    def _is_over(self) -> bool:
        record = self.status()
        if record.state in {JobState.FAILED, JobState.CANCELLED, JobState.LOST}:
            message = f"job {self.name!r} is {record.state.value}: {record.reason}"
            raise JobError(message)
        return record.state.is_over
