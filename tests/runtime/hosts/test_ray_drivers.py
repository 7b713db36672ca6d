"""Who started a job dies: a detached one goes on, another one ends, and nothing stays open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millstream.errors import JobCancelledError
from millstream.runtime.control import JobState
from tests.cli.process_kit import run as command
from tests.runtime.hosts.ray_jobs import POLL_S, TIMEOUT_S, FedJob
from tests.runtime.hosts.ray_kit import is_alive

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def driver(address: str, job: FedJob, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that submits the job and waits for it; it does not outlive the block."""
    job.run = uuid.uuid4().hex
    script = Path(__file__).with_name("ray_driver.py")
    process = subprocess.Popen(
        [sys.executable, script, address, job.log.path, "2", job.run, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def gone(pids: list[int]) -> bool:
    deadline_s = time.monotonic() + TIMEOUT_S
    while any(map(is_alive, pids)):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def test_a_detached_job_goes_on_without_its_driver_until_it_is_told_to_end(
    ray_address: str, tmp_path: Path
) -> None:
    job = FedJob(tmp_path / "log")
    with driver(ray_address, job, "--detach") as process:
        before = job.wait_mid_run()
        process.send_signal(signal.SIGKILL)
        process.wait()
    after = job.wait_until(lambda record: record.checkpoints > before.checkpoints + 2)
    assert (after.pid, after.attempt) == (before.pid, before.attempt)
    # Nobody has a handle on it.
    done = command(Path(job.log.path), "jobs", "drain", "late_flights")
    assert done.code == 0, done.error
    job.wait_until(lambda record: record.state is JobState.FINISHED)
    job.check()
    assert gone([each.pid for each in before.workers]), "nobody else would end them"


def test_a_job_that_is_not_detached_ends_with_its_driver(ray_address: str, tmp_path: Path) -> None:
    job = FedJob(tmp_path / "log")
    with driver(ray_address, job) as process:
        before = job.wait_mid_run()
        job.wait_for_rows_in_flight()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert gone([before.pid, *(each.pid for each in before.workers)])
    lost = job.record()
    assert lost is not None
    assert not lost.state.is_over, "there was nobody to say that it is"
    handle = job.submit(1)
    record = job.wait_until(lambda record: bool(record.epoch))
    assert record.restored is not None
    assert record.restored >= (before.checkpoint or 0)
    job.wait_mid_run()
    job.wait_for_rows_in_flight()
    handle.cancel()
    with pytest.raises(JobCancelledError):
        handle.wait(TIMEOUT_S)
    assert handle.status().state is JobState.CANCELLED
    job.check_that_nothing_is_open()
    assert job.rows_taken_back() > 0
    job.end_well(job.submit(1))
