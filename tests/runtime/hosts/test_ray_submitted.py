"""A job on a Ray that runs, as README's commands start the one and submit the other."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest

from millstream.log import Log
from millstream.runtime.control import JobControl, JobRecord, JobState
from millstream.storage_local.kernel_cache import cache_directory
from tests.runtime.hosts.ray_jobs import POLL_S, TIMEOUT_S
from tests.runtime.hosts.ray_kit import kill_with_all_below, own_network

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]
JOB = "late_departures"
FLIGHTS = pa.schema(
    {
        "scheduled": pa.timestamp("us", "UTC"),
        "origin": pa.string(),
        "carrier": pa.string(),
        "dep_delay": pa.int64(),
    }
)
HOUR = datetime(2013, 1, 1, 5, tzinfo=UTC)
DELAYS = [10, 20, 40]
"""In minutes, of the flights of that hour."""
PARTITIONS = 2
NO_DASHBOARD = "Cannot include dashboard"
"""What Ray says where packages that its dashboard needs are missing."""


def readme_commands() -> list[str]:
    """README's block on a Ray that runs, a command each."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^# On a Ray that runs:\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    lines = re.sub(r"\\\n *", "", block).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@dataclass
class Shell:
    """Where README's reader sits: a directory with a log and jobs, the environment activated."""

    directory: Path
    environment: dict[str, str]

    def start(self, command: str, output: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            shell=True,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Run a command to its good end; what it said."""
        return ended_well(self.start(command))


def ended_well(process: subprocess.Popen[str]) -> str:
    with process:
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert process.returncode == 0, said
    return said


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """In the log are flights of one hour."""
    log = Log(tmp_path / "demo-data")
    log.create_topic("flights", FLIGHTS, partitions=PARTITIONS, time="scheduled")
    airlines = pa.schema({"carrier": pa.string(), "name": pa.string()})
    log.create_topic("airlines", airlines, key=("carrier",), table=True)
    with log.producer("airlines") as producer:
        producer.append(pa.table({"carrier": ["B6"], "name": ["JetBlue"]}))
    rows = [
        {"scheduled": HOUR, "origin": "JFK", "carrier": "B6", "dep_delay": delay}
        for delay in DELAYS
    ]
    with log.producer("flights") as producer:
        producer.append(pa.Table.from_pylist(rows, FLIGHTS))
    (tmp_path / "jobs").mkdir()
    shutil.copy(ROOT / "jobs" / f"{JOB}.py", tmp_path / "jobs")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MILLSTREAM_"))}
    environment = {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        # Kernels are not to be compiled again for this home.
        "MILLSTREAM_CACHE": str(cache_directory()),
    }
    return Shell(tmp_path, environment)


@contextmanager
def ray_running(shell: Shell, command: str) -> Iterator[str]:
    """A cluster that README's command started; where jobs are submitted to it."""
    gcs, dashboard = free_port(), free_port()
    options = (
        f"--node-ip-address=127.0.0.1 --port={gcs} --dashboard-port={dashboard} --num-cpus=2 "
        "--object-store-memory=80000000 --disable-usage-stats --block"
    )
    said = shell.directory / "ray-start"
    # The names of sockets have to be short.
    with (
        TemporaryDirectory(prefix="ray-") as sockets,
        said.open("w") as output,
        shell.start(f"exec {command} {options} --temp-dir={sockets}", output) as process,
    ):
        try:
            wait_for_dashboard(process, said, dashboard)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            if process.poll() is None:
                kill_with_all_below(process)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def wait_for_dashboard(process: subprocess.Popen[str], said: Path, port: int) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while "Ray runtime started" not in said.read_text():
        if process.poll() is not None:
            if NO_DASHBOARD in said.read_text():
                pytest.skip(f"Ray's dashboard cannot start: {said.read_text().splitlines()[-1]}")
            pytest.fail(said.read_text())
        assert time.monotonic() < deadline_s, said.read_text()
        time.sleep(POLL_S)
    with socket.socket() as connection:
        if connection.connect_ex(("127.0.0.1", port)) != 0:
            pytest.skip(f"Ray's dashboard did not start: nobody listens at {port}")


def record(log: Log) -> JobRecord | None:
    return JobControl(log, JOB).record()


def test_a_job_is_submitted_as_readme_says(shell: Shell) -> None:
    mode, token, start, _, submit = readme_commands()
    log = Log(shell.directory / "demo-data")
    name, value = mode.removeprefix("export ").split("=")
    shell.environment[name] = value
    shell.run(token)
    (kept,) = (Path(shell.environment["HOME"]) / ".ray").iterdir()
    assert kept.stat().st_mode & 0o077 == 0, "nobody else reads the token"
    with own_network(), ray_running(shell, start) as address:
        # Else it would look for any Ray of this machine.
        shell.environment["RAY_API_SERVER_ADDRESS"] = address
        submitted = shell.start(submit)
        deadline_s = time.monotonic() + TIMEOUT_S
        while rows_read(log) < len(DELAYS) + PARTITIONS:
            assert submitted.poll() is None, ended_well(submitted)
            assert time.monotonic() < deadline_s, record(log)
            time.sleep(POLL_S)
        shell.run(f"millstream jobs drain {JOB} --log demo-data")
        assert "succeeded" in ended_well(submitted)
    last = record(log)
    assert last is not None
    # The script does not say where it runs: Ray does, by RAY_ADDRESS.
    assert (last.host, last.state, last.attempt) == ("ray", JobState.FINISHED, 1)
    (hour,) = Log(log.path).topic(JOB).to_arrow().to_pylist()
    assert (hour["origin"], hour["window_start"]) == ("JFK", HOUR)
    assert (hour["flights"], hour["mean_delay"], hour["worst_delay"]) == (2, 30.0, 40)


def rows_read(log: Log) -> int:
    """How many rows the job says that it has read: flights, and in each worker the airline."""
    said = record(log)
    return 0 if said is None else sum(each.rows_read for each in said.workers)
