"""Starts `tests.log.log_process`, lets it go, and hears what it has made durable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent


class WriterProcess:
    """A process that does `task` on the log in `path`, from `go` on."""

    def __init__(self, path: Path | str, task: str, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.log.log_process", path, task, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        self.wait_for("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait_for(self, line: str) -> None:
        assert self._process.stdout is not None
        while line not in self._lines:
            heard = self._process.stdout.readline()
            assert heard, f"the process ended before it said {line!r}: {self._lines}"
            self._lines.append(heard.strip())

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it here and now, unless it has ended."""
        self._process.kill()
        self._process.wait()

    def acked(self) -> list[int]:
        """The rows that it said are durable, when it has ended."""
        self._process.wait()
        assert self._process.stdout is not None
        self._lines += [line.strip() for line in self._process.stdout]
        words = [line.split() for line in self._lines if line.startswith("acked ")]
        return [int(number) for _, number in words]
