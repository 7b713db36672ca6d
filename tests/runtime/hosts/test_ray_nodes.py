"""Nodes that stand still, lack memory or die: a job goes on with what is left, or says what not."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from millstream.cli.live import LiveView
from millstream.runtime.control import JobRecord, JobState
from millstream.runtime.restart import RestartStrategy
from tests.runtime.hosts.ray_jobs import POLL_S, TIMEOUT_S, FedJob
from tests.runtime.hosts.ray_kit import end, is_alive, kill_with_all_below, processes_below

ray: Any = pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("ray_address")]
SHORT_OF_MEMORY = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}


@contextmanager
def node(address: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of one processor more; the process that started its raylet and waits for that."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}"),
            *("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAY_AUTH_MODE": "token", **environment},
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_with_all_below(process)


def raylet_of(process: subprocess.Popen[bytes]) -> int:
    for pid in processes_below(process.pid):
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").startswith("raylet"):
            return pid
    pytest.fail("the node has no raylet")


def wait_for(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)


def nodes() -> int:
    return sum(each["Alive"] for each in ray.nodes())


def test_a_job_goes_on_without_nodes_that_stand_still_or_lack_memory(
    ray_address: str, tmp_path: Path
) -> None:
    before_nodes = nodes()
    workers = int(ray.cluster_resources()["CPU"]) + 1
    job = FedJob(tmp_path / "log")
    with node(ray_address) as first:
        wait_for(lambda: nodes() == before_nodes + 1)
        handle = job.submit(workers, restart=RestartStrategy())
        before = job.wait_mid_run()
        (there,) = {each.pid for each in before.workers} & set(processes_below(first.pid))
        with node(ray_address, **SHORT_OF_MEMORY) as second:
            wait_for(lambda: nodes() == before_nodes + 2)
            # Ray takes it for dead. Its worker lives on and writes: nobody may see that.
            end(raylet_of(first), signal.SIGSTOP)
            job.wait_until(lambda _: bool(short_of_memory(job)))
            kill_with_all_below(second)
        after = job.wait_mid_run(attempt=before.attempt + 1)
        assert after.restored is not None
        assert after.restored >= (before.checkpoint or 0) >= 2
        assert is_alive(there), "there was nobody to write what nobody may see"
        end(raylet_of(first), signal.SIGCONT)
        wait_for(lambda: not is_alive(there))
    job.end_well(handle)
    reason = short_of_memory(job)[0]
    assert re.match(r"worker \d died when it was started: out of memory: .* low on memory", reason)
    assert reason.endswith("run fewer workers a machine (parallelism), or give it more memory")


def test_a_job_that_has_no_room_without_a_dead_node_says_so_and_goes_on_with_another(
    ray_address: str, tmp_path: Path
) -> None:
    before_nodes = nodes()
    left = int(ray.cluster_resources()["CPU"])
    job = FedJob(tmp_path / "log")
    with node(ray_address) as first:
        wait_for(lambda: nodes() == before_nodes + 1)
        # Each is to have one of its own: they do not share what is left.
        handle = job.submit(left + 1, worker_cpus=1)
        before = job.wait_mid_run()
        assert before.pid not in processes_below(first.pid), "the coordinator is with its driver"
        kill_with_all_below(first)
        room = f"each of {left + 1} needs 1 CPU, and of {left} there are 0 free"
        waiting = job.wait_until(lambda record: room in (record.reason or ""))
    assert re.fullmatch(rf"Ray is to start worker \d: {room}", waiting.reason or "")
    assert (waiting.state, waiting.restored) == (JobState.RESTARTING, waiting.checkpoint)
    assert handle.status().reason == waiting.reason
    assert f"restarting: {waiting.reason}" in shown(waiting)
    with node(ray_address):
        after = job.wait_mid_run(attempt=before.attempt + 1)
        assert after.reason is None
        assert after.restored is not None
        assert after.restored >= (before.checkpoint or 0) >= 2
        job.end_well(handle)


def shown(record: JobRecord) -> str:
    """What the live view shows of a job."""
    console = Console(file=io.StringIO(), width=200, record=True)
    with LiveView("job", console=console) as view:
        view.update(record)
        console.print(view._render())
    return console.export_text()


def short_of_memory(job: FedJob) -> list[str]:
    """Why the job was restarted, where that was for want of memory."""
    reasons = [each.message for each in job.journal("restarting")]
    return [each for each in reasons if "out of memory" in each]
