"""A job for which a cluster has no room says what it waits for, gives up, and leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millstream.cli.main import invoke
from millstream.log import Log
from millstream.runtime.control import JobControl, JobState
from millstream.runtime.journal import Journal
from tests.runtime.kit import EVENTS, events, put

ray: Any = pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120), pytest.mark.usefixtures("ray_address")]

JOB = """\
import millstream as ms

ms.run(ms.stream("events").to("copy"), until="end", parallelism=2)
"""


def test_too_few_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(tmp_path / "log")
    log.create_topic("events", EVENTS, partitions=2, time="time")
    put(log, "events", events(1, 2))
    script = tmp_path / "job.py"
    script.write_text(JOB)
    total = ray.cluster_resources()["CPU"]
    # The first worker takes all there is, and may take its time to start.
    monkeypatch.setattr("millstream.runtime.hosts.ray_pool.SOON_S", 0.5)
    capsys.readouterr()
    placement = ["--on", "ray", "--worker-cpus", f"{total:g}", "--start-timeout", "5s"]
    code = invoke(["run", str(script), *placement, "--log", log.path])
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert "Traceback" not in printed.err
    room = f"each of 2 needs {total:g} CPU, and of {total:g} there are 0 free"
    message = printed.err.splitlines()[-1]
    # The first one has room; on a slow machine it does not start in time either.
    number = 1 if "worker 1" in message else 0
    assert message == (
        f"error: Ray started no process for worker {number} within 5 s: {room}; end other jobs, "
        "add nodes, run fewer workers (parallelism), or let each ask for less (worker_cpus)"
    )
    record = JobControl(log, "job").record()
    assert record is not None
    assert (record.state, f"error: {record.reason}") == (JobState.FAILED, message)
    waited = [each.message for each in Journal(log, "job").read() if each.event == "waiting"]
    assert waited[-1] in {f"Ray is to start worker {each}: {room}" for each in (0, 1)}
    assert log.topic("copy").stable_ends() == log.topic("copy").durable_ends() == [0, 0]
