"""The command line in processes of its own, as a shell would start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from millstream.cli.main import main; main()"]
TIMEOUT_S = 60.0
POLL_S = 0.01
"""What another process does can only be looked at again and again."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    error: str


def environment(log: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MILLSTREAM_LOG": str(log),
        "COLUMNS": "160",
        "PYTHONWARNINGS": "error",
    }


@contextmanager
def started(
    log: Path, *arguments: object, command: list[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command against the log, by default one of ours; it does not outlive the block."""
    process = subprocess.Popen(
        [*(COMMAND if command is None else command), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(log),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command to end by itself."""
    out, error = process.communicate(timeout=TIMEOUT_S)
    return Ended(process.returncode, out, error)


def run(log: Path, *arguments: object) -> Ended:
    """Run one of our commands against the log to its end."""
    with started(log, *arguments) as process:
        return ended(process)


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> Ended:
    """Send a signal to a command, and wait for its end."""
    process.send_signal(number)
    return ended(process)


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return when something is so; fail where the process ends before, or it takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        if process.poll() is not None:
            raise AssertionError(ended(process))
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(POLL_S)
