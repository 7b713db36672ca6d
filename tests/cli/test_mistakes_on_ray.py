"""Jobs that cannot come to Ray: one clear message, code 2, no traceback; and no Ray is started."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream.errors import OptionError
from millstream.log import Log
from tests.cli.conftest import Command

COPY = """\
import millstream as ms

ms.run(ms.stream("clicks").to("copy"), until="end")
"""
OWN_WINDOW = """\
import threading
from dataclasses import dataclass, field

import millstream as ms

@dataclass(frozen=True)
class Mine(type(ms.tumbling("1h"))):
    lock: object = field(default_factory=threading.Lock)

clicks = ms.stream("clicks", lateness="1h").key_by("n")
hours = clicks.window(Mine(3_600_000_000)).agg(count=ms.count())
ms.run(hours.to("hours"), until="end")
"""
DETACHED = """\
import millstream as ms

copy = ms.stream("clicks").to("copy")
ms.submit(copy, on="local", detach=True)
"""


@pytest.fixture
def job(log_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write a job; there is a topic for it to read."""
    schema = pa.schema({"time": pa.timestamp("us", "UTC"), "n": pa.int64()})
    Log(log_directory).create_topic("clicks", schema, time="time")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return log_directory.parent / "job.py"


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a Ray is started."""
    ray = pytest.importorskip("ray")

    def init(**options: Any) -> None:
        if options["address"] == "local":
            pytest.fail("a Ray was started")
        began(**options)

    began = ray.init
    monkeypatch.setattr(ray, "init", init)


def refused(millstream: Command, *arguments: object) -> str:
    code, out, error = millstream("run", *arguments)
    assert (code, out) == (2, ""), error
    assert "Traceback" not in error
    assert error.count("error: ") == 1, error
    return error.splitlines()[-1].removeprefix("error: ")


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Where a port is bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.usefixtures("no_ray")
def test_an_address_at_which_nobody_listens(
    millstream: Command, job: Path, monkeypatch: pytest.MonkeyPatch, silent_address: str
) -> None:
    job.write_text(COPY)
    monkeypatch.setenv("RAY_ADDRESS", silent_address)
    message = refused(millstream, job)
    assert message.startswith(f"no Ray can be reached at {silent_address!r}: ")
    assert message.endswith("is it running? (ray status)")


@pytest.mark.usefixtures("no_ray")
def test_the_address_that_jobs_are_submitted_to(
    millstream: Command, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write_text(COPY)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    message = refused(millstream, job)
    assert message.startswith("no Ray can be reached at 'http://127.0.0.1:8265': that is where")
    assert message.endswith("RAY_ADDRESS=auto or e.g. RAY_ADDRESS=127.0.0.1:6379")


@pytest.mark.usefixtures("no_ray")
def test_where_none_runs_to_be_found(
    millstream: Command, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def nobody(**options: Any) -> None:
        message = "Could not find any running Ray instance"
        raise ConnectionError(message)

    monkeypatch.setattr(ray, "init", nobody)
    job.write_text(COPY)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    message = refused(millstream, job)
    assert message.startswith("no Ray can be reached at 'auto': Could not find any running Ray")
    assert "is it running" in message


@pytest.mark.usefixtures("no_ray")
def test_what_cannot_be_pickled_is_named_with_its_line(millstream: Command, job: Path) -> None:
    job.write_text(OWN_WINDOW)
    message = refused(millstream, job, "--on", "ray")
    assert message.startswith(f"{job}:11: job 'job' cannot be sent to Ray, for what it holds")
    assert "roots[0].input.window.lock, of type lock (<unlocked _thread.lock object" in message
    assert message.endswith('leave it out, or run in this process: on="local"')


def test_ray_that_is_not_installed(
    millstream: Command, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name in {"ray", "millstream.runtime.hosts.ray", "millstream.runtime.hosts.ray_pool"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    job.write_text(COPY)
    message = refused(millstream, job, "--on", "ray")
    assert message.startswith("Ray is not installed (")
    assert "pip install 'millstream[ray]'" in message
    assert 'on="local"' in message


def test_a_job_of_this_process_cannot_outlive_it(millstream: Command, job: Path) -> None:
    job.write_text(DETACHED)
    message = refused(millstream, job)
    assert message == (
        f'{job}:4: detach=True is for on="ray": a job that runs in this process ends with it; '
        'give on="ray", or leave detach out'
    )


def test_a_job_that_would_run_here_by_default_cannot_outlive_this_process(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ms.stream("clicks", log=Log(job.parent / "log"))
    monkeypatch.setattr("millstream.dsl.job.submit_prepared", lambda *_, **__: SimpleNamespace())
    with pytest.raises(OptionError, match='detach=True is for on="ray"'):
        ms.submit(stream.to("copy"), detach=True)
    ms.submit(stream.to("copy"), detach=True, on="ray")
