"""Jobs on a real Ray: what dies is replaced, and the output is the model's."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from millstream.runtime.control import JobRecord
from millstream.runtime.hosts.remote_fleet import Patience
from tests.runtime.hosts.ray_driver import CHECKPOINT_INTERVAL_US
from tests.runtime.hosts.ray_jobs import FedJob, seeded
from tests.runtime.hosts.ray_kit import end

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("ray_address")]


KILLS_MAX = 4
"""The first one mostly finds rows in flight; these lie there for some milliseconds only."""


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    chooser, job = seeded("one worker"), FedJob(tmp_path / "log")
    handle = job.submit(1)
    after_killed_workers(job, chooser)
    job.end_well(handle)
    assert job.rows_taken_back() > 0, "nothing had to be done again"


def test_a_job_loses_a_worker_its_coordinator_and_a_worker_that_stands_still(
    tmp_path: Path,
) -> None:
    chooser, job = seeded("two workers"), FedJob(tmp_path / "log")
    handle = job.submit(2, patience=Patience(answer_s=2.0))
    before = after_killed_workers(job, chooser)

    job.wait_for_rows_in_flight()
    end(before.pid, signal.SIGKILL)
    after = restored(job, before)
    assert after.pid != before.pid

    before = job.wait_mid_run(attempt=after.attempt)
    stopped = chooser.choice(before.workers)
    job.wait_for_rows_in_flight()
    end(stopped.pid, signal.SIGSTOP)
    try:
        after = restored(job, before)
    finally:
        end(stopped.pid, signal.SIGCONT)
    reason = job.journal("restarting")[-1].message
    assert reason.startswith(f"worker {stopped.worker} (process {stopped.pid} on "), reason
    assert "did not answer for 2." in reason

    job.wait_mid_run(attempt=after.attempt)
    job.end_well(handle)
    assert job.rows_taken_back() > 0, "nothing had to be done again"


def after_killed_workers(job: FedJob, chooser: random.Random) -> JobRecord:
    """Kill workers at random moments until one had written rows that are to be taken back.

    Each time two checkpoints were completed before, and the job goes on from the newest.
    """
    before, kills = job.wait_mid_run(), 0
    while kills == 0 or (job.rows_taken_back() == 0 and kills < KILLS_MAX):
        job.wait_for(chooser.uniform(0, 2 * CHECKPOINT_INTERVAL_US / 1e6))
        job.wait_for_rows_in_flight()
        worker = chooser.choice(before.workers)
        end(worker.pid, signal.SIGKILL)
        kills += 1
        after = restored(job, before)
        reason = job.journal("restarting")[-1].message
        assert reason.startswith(f"worker {worker.worker} (process {worker.pid} on "), reason
        assert " died: " in reason
        assert "it was killed, maybe by the kernel for want of memory" in reason
        before = job.wait_mid_run(attempt=after.attempt)
    return before


def restored(job: FedJob, before: JobRecord) -> JobRecord:
    """Wait for the next attempt; return how it began: from a checkpoint of the one before."""
    after = job.wait_until(lambda record: bool(record.epoch > before.epoch and record.workers))
    assert after.restored is not None
    assert after.restored >= (before.checkpoint or 0) >= 2
    return after
