"""Nodes that stand still, lack memory or die: the job goes on with what is left of the cluster."""

from __future__ import annotations

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

from millstream.runtime.restart import RestartStrategy
from tests.runtime.hosts.ray_jobs import POLL_S, TIMEOUT_S, FedJob
from tests.runtime.hosts.ray_kit import end, is_alive, processes_below

ray: Any = pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180), pytest.mark.usefixtures("ray_address")]
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
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Let a node die with all that runs there."""
    for pid in [process.pid, *processes_below(process.pid)]:
        end(pid, signal.SIGKILL)
    process.wait()


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
            kill(second)
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


def short_of_memory(job: FedJob) -> list[str]:
    """Why the job was restarted, where that was for want of memory."""
    reasons = [each.message for each in job.journal("restarting")]
    return [each for each in reasons if "out of memory" in each]
