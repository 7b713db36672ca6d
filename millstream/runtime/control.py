"""How a running job is seen and told from other processes: two small files beside its state.

    <log>/jobs/<job>/state.json      what the job's host says of it, a few times a second
    <log>/jobs/<job>/request.json    what somebody asks of it: stop, drain, cancel

Neither decides anything of the job's data: that is the control topic's alone.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from millstream.errors import OptionError, nearest
from millstream.log import Log
from millstream.runtime.activity import WorkerStatus

Action = Literal["stop", "drain", "cancel"]

LOST_AFTER_US = 15_000_000
"""A job that says it runs and has said nothing for so long is lost."""


class JobState(Enum):
    """Where a job's run is."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_over(self) -> bool:
        """`True` iff the run does nothing any more."""
        return self not in {JobState.STARTING, JobState.RUNNING, JobState.RESTARTING}


class JobRecord(msgspec.Struct, frozen=True):
    """What the host of a job says of it.

    Parameters
    ----------
    run
        Which run: the name of its host's process and when it began.
    host, pid, node
        `"local"` or `"ray"`, and where its coordinator is.
    epoch, attempt
        Of the present attempt; attempts are counted from 1.
    checkpoint, checkpoint_us, checkpoint_bytes
        The newest completed one, when that was, and how much state a restore would read.
    reason
        Why it failed or restarts.
    """

    job: str
    run: str
    state: JobState
    host: str
    pid: int
    node: str
    parallelism: int
    started_us: int
    updated_us: int
    epoch: int = 0
    attempt: int = 0
    restored: int | None = None
    checkpoint: int | None = None
    checkpoint_us: int | None = None
    checkpoint_bytes: int | None = None
    checkpoints: int = 0
    reason: str | None = None
    workers: tuple[WorkerStatus, ...] = ()

    def slowest_operator(self) -> str | None:
        """Return the operator that computed longest, over all workers; `None`: none did."""
        busy: dict[str, int] = {}
        for worker in self.workers:
            for name, operator in worker.operators.items():
                busy[name] = busy.get(name, 0) + operator.busy_us
        slowest = max(busy, key=lambda name: busy[name], default=None)
        return slowest if slowest is not None and busy[slowest] else None

    def holding_partition(self) -> str | None:
        """Return the partition whose watermark holds back all the others."""
        timed = [each for each in self.workers if each.watermark_us is not None]
        least = min(timed, key=lambda each: each.watermark_us or 0, default=None)
        return None if least is None else least.holding


class Request(msgspec.Struct, frozen=True):
    """What somebody asks of a run.

    Parameters
    ----------
    run
        Which run is meant: a later one of the same job does not obey.
    action
        `"stop"`: one more checkpoint, open windows stay open in it. `"drain"`: read no further
        and end. `"cancel"`: end at once; what was not committed is taken back.
    flush
        Of a drain: whether open windows are given out, or kept for a later run.
    """

    run: str
    action: Action
    flush: bool = True


class JobControl:
    """The two files of one job.

    Parameters
    ----------
    log, job
        Whose.
    """

    def __init__(self, log: Log, job: str) -> None:
        self._log = log
        self._job = job
        self._directory = f"{log.path}/jobs/{job}"

    def publish(self, record: JobRecord) -> None:
        """Say how the job is doing."""
        self._log.storage.make_directory(self._directory)
        self._log.storage.write_file(f"{self._directory}/state.json", msgspec.json.encode(record))

    def record(self) -> JobRecord | None:
        """Return what the job's host said last; a host that fell silent has lost the job."""
        try:
            content = self._log.storage.read_file(f"{self._directory}/state.json")
            record = msgspec.json.decode(content, type=JobRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        silent_us = self._log.clock.now_us() - record.updated_us
        if not record.state.is_over and silent_us > LOST_AFTER_US:
            reason = f"its host said nothing for {silent_us // 1_000_000} s"
            return msgspec.structs.replace(record, state=JobState.LOST, reason=reason)
        return record

    def ask(self, action: Action, *, flush: bool = True, run: str | None = None) -> None:
        """Ask a run (`None`: the present one) to stop, drain or cancel.

        Raises
        ------
        OptionError
            When the job is not running.
        """
        record = self.record()
        is_another = run is not None and (record is None or record.run != run)
        if not is_another and (record is None or record.state.is_over):
            state = "never ran" if record is None else f"is {record.state.value}"
            message = f"job {self._job!r} is not running: it {state}"
            raise OptionError(message)
        # A run that has not said anything yet obeys when it does.
        asked = run if record is None or run is not None else record.run
        assert asked is not None
        request = Request(asked, action, flush)
        self._log.storage.make_directory(self._directory)
        path = f"{self._directory}/request.json"
        self._log.storage.write_file(path, msgspec.json.encode(request))

    def requested(self, run: str) -> Request | None:
        """Return what is asked of `run`."""
        try:
            content = self._log.storage.read_file(f"{self._directory}/request.json")
            request = msgspec.json.decode(content, type=Request)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return request if request.run == run else None


def job_names(log: Log) -> list[str]:
    """Return the names of all jobs that ever ran in a log."""
    return log.storage.list_directory(f"{log.path}/jobs")


def known_job(log: Log, job: str) -> JobControl:
    """Return the control of a job; raises `OptionError` where there is none of that name."""
    names = job_names(log)
    if job not in names:
        message = f"no job {job!r} in the log {log.path!r}{nearest(job, names)}"
        raise OptionError(message)
    return JobControl(log, job)
