"""`millstream jobs`: what runs and how it is told to end, as another process sees it."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import msgspec
import pytest

from millstream.clock import SystemClock
from millstream.log import Log
from millstream.runtime.activity import OperatorStatus, WorkerStatus
from millstream.runtime.control import JobControl, JobRecord, JobState, Request
from millstream.runtime.journal import Journal, JournalRecord
from tests.cli.conftest import Command
from tests.cli.process_kit import ended, run, started, wait_until

WORKERS = tuple(
    WorkerStatus(
        index,
        rows_read=1_000 + index,
        rows_written=10,
        watermark_us=1_356_998_400_000_000 + index,
        holding=f"flights/{index}",
        lag_rows=7,
        busy_us=600_000,
        backpressured_us=100_000,
        idle_us=300_000,
        pid=4_000 + index,
        node="10.0.0.1",
        operators={"window": OperatorStatus(1_000, 5, 2, 8_000, 80, 500_000, 4, 2_048, 0, 4_096)},
    )
    for index in range(2)
)


@pytest.fixture
def log(log_directory: Path) -> Log:
    log_directory.mkdir()
    return Log(log_directory)


def publish(log: Log, job: str, state: JobState, **changes: object) -> JobRecord:
    now_us = SystemClock().now_us()
    record = JobRecord(job, f"{job}-1", state, "ray", 321, "host", 2, now_us, now_us, epoch=4)
    record = msgspec.structs.replace(record, **changes)
    JobControl(log, job).publish(record)
    return record


def test_a_log_without_jobs_says_so(log: Log, millstream: Command) -> None:
    code, out, error = millstream("jobs", "list")
    assert (code, out) == (0, "")
    assert f"no jobs in {log.path}" in error


def test_jobs_are_listed(log: Log, millstream: Command) -> None:
    publish(log, "hours", JobState.RUNNING, workers=WORKERS, checkpoint=12, attempt=3)
    publish(log, "days", JobState.FAILED, reason="worker 1 died")
    publish(log, "weeks", JobState.RUNNING, updated_us=0)
    code, out, _ = millstream("jobs", "list")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert ["hours", "running", "ray", "2", "12", "2,001", "3"] in rows
    assert ["days", "failed", "ray", "2", "–", "0", "0"] in rows
    assert ["weeks", "lost", "ray", "2", "–", "0", "0"] in rows


def test_a_job_is_described(log: Log, millstream: Command) -> None:
    publish(
        log,
        "hours",
        JobState.RUNNING,
        workers=WORKERS,
        checkpoint=12,
        checkpoint_us=1_356_998_400_000_000,
        checkpoint_bytes=2_048,
        checkpoints=5,
        attempt=3,
    )
    code, out, _ = millstream("jobs", "describe", "hours")
    assert code == 0
    said = " ".join(out.split())
    for text in (
        "job hours",
        "state running",
        "on ray, process 321 on host",
        "attempt 3, epoch 4",
        "checkpoint 12, at 2013-01-01 00:00:00, 2.0 KiB of state; 5 in this run",
        "slowest operator window",
        "watermark held by flights/0",
        "0 1,000 10 7 60% 10% 30% 2013-01-01 00:00:00",
        "window 2,000 10 4 0 15.6 KiB 1.00 s 8 4.0 KiB",
    ):
        assert text in said


def test_a_job_that_waits_says_what_for(log: Log, millstream: Command) -> None:
    reason = "Ray is to start worker 0: each of 4 needs 1 CPU, and of 8 there are 0 free"
    publish(log, "hours", JobState.STARTING, reason=reason)
    code, out, _ = millstream("jobs", "describe", "hours")
    assert code == 0
    assert f"starting: {reason}" in " ".join(out.split())


@pytest.mark.parametrize("command", ["describe", "stop", "drain", "cancel", "logs"])
def test_an_unknown_job_is_told_from_known_ones(
    log: Log, millstream: Command, command: str
) -> None:
    publish(log, "hours", JobState.RUNNING)
    code, _, error = millstream("jobs", command, "huors")
    assert code == 2
    assert "no job 'huors'" in error
    assert "did you mean 'hours'?" in " ".join(error.split())


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("stop",), Request("hours-1", "stop")),
        (("cancel",), Request("hours-1", "cancel")),
        (("drain",), Request("hours-1", "drain")),
        (("drain", "--no-flush"), Request("hours-1", "drain", flush=False)),
    ],
)
def test_a_job_is_told_to_end(
    log: Log, millstream: Command, arguments: tuple[str, ...], request_: Request
) -> None:
    publish(log, "hours", JobState.RUNNING)
    command, *options = arguments
    code, _, error = millstream("jobs", command, "hours", *options)
    assert code == 0
    assert "job 'hours' was asked to" in error
    assert JobControl(log, "hours").requested("hours-1") == request_


@pytest.mark.parametrize("command", ["stop", "drain", "cancel"])
def test_a_job_that_is_over_cannot_be_told(log: Log, millstream: Command, command: str) -> None:
    publish(log, "hours", JobState.FINISHED)
    code, _, error = millstream("jobs", command, "hours")
    assert code == 2
    assert "job 'hours' is not running: it is finished" in error


def note(log: Log, event: str) -> None:
    Journal(log, "hours").write(JournalRecord(1, "hours", "hours-1", 1, event, f"it {event}"))


def test_the_journal_is_printed(log: Log, millstream: Command) -> None:
    publish(log, "hours", JobState.RUNNING)
    note(log, "started")
    note(log, "failed")
    code, out, _ = millstream("jobs", "logs", "hours")
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["started", "failed"]


def test_the_journal_is_followed(log: Log) -> None:
    publish(log, "hours", JobState.RUNNING)
    note(log, "started")
    with started(Path(log.path), "jobs", "logs", "hours", "--follow") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        note(log, "failed")
        assert json.loads(process.stdout.readline())["event"] == "failed"


def scrape(url: str) -> dict[str, float]:
    """What is served, as text that Prometheus reads: values by name and labels."""
    with urllib.request.urlopen(url, timeout=20) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        lines = reply.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_metrics_are_served_over_http(log: Log) -> None:
    done = {"checkpoint": 12, "checkpoint_us": 1_000, "checkpoint_bytes": 2_000}
    publish(log, "hours", JobState.RUNNING, workers=WORKERS, attempt=3, **done)
    publish(log, "days", JobState.FAILED)
    with started(Path(log.path), "jobs", "metrics", "--port", "0") as process:
        assert process.stderr is not None
        url = process.stderr.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/metrics")
        found = scrape(url)
        assert found['millstream_job_state{job="hours",state="running"}'] == 1
        assert found['millstream_job_state{job="hours",state="failed"}'] == 0
        assert found['millstream_job_state{job="days",state="failed"}'] == 1
        assert found['millstream_job_checkpoint{job="hours"}'] == 12
        assert found['millstream_job_checkpoint_us{job="hours"}'] == 1_000
        assert found['millstream_job_checkpoint_bytes{job="hours"}'] == 2_000
        assert 'millstream_job_checkpoint{job="days"}' not in found
        assert found['millstream_job_attempt{job="hours"}'] == 3
        assert found['millstream_worker_rows_read{job="hours",worker="1"}'] == 1_001
        for name, value in {
            "lag_rows": 7,
            "busy_us": 600_000,
            "backpressured_us": 100_000,
            "idle_us": 300_000,
            "watermark_us": 1_356_998_400_000_000,
        }.items():
            assert found[f'millstream_worker_{name}{{job="hours",worker="0"}}'] == value
        where = '{job="hours",operator="window",worker="0"}'
        assert found[f"millstream_operator_rows_late{where}"] == 2
        assert found[f"millstream_operator_state_bytes{where}"] == 2_048
        assert found[f"millstream_operator_state_disk_bytes{where}"] == 4_096
        assert found[f"millstream_operator_state_keys{where}"] == 4
        # Each scrape looks anew.
        publish(log, "hours", JobState.FINISHED, workers=WORKERS, checkpoint=13)
        found = scrape(url)
        assert found['millstream_job_state{job="hours",state="finished"}'] == 1
        assert found['millstream_job_checkpoint{job="hours"}'] == 13
        process.send_signal(signal.SIGINT)
        assert ended(process).code == 0


JOB = """\
import millstream as ms

clicks = ms.stream("clicks", lateness="2h")
if __name__ == "__main__":
    ms.run(clicks.to("copy"), checkpoint_interval="20ms")
"""


@pytest.mark.parametrize(
    ("command", "state", "code"),
    [("stop", "stopped", 0), ("drain", "finished", 0), ("cancel", "cancelled", 1)],
)
@pytest.mark.usefixtures("clicks")
def test_a_running_job_obeys_another_process(
    log_directory: Path, tmp_path: Path, command: str, state: str, code: int
) -> None:
    script = tmp_path / "copy.py"
    script.write_text(JOB)
    with started(log_directory, "run", script) as process:

        def is_running() -> bool:
            record = JobControl(Log(log_directory), "copy").record()
            return record is not None and record.checkpoints > 1

        wait_until(is_running, process)
        assert run(log_directory, "jobs", command, "copy").code == 0
        done = ended(process)
    assert done.code == code, done.error
    assert ("was cancelled" in done.error) is (command == "cancel")
    listed = run(log_directory, "jobs", "list").out
    assert f"copy{state}" in "".join(listed.split())
