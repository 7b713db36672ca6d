from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millstream.cli.main import invoke

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def log_directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def millstream(
    log_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run a command against the test's log; give its exit code, output and error output."""
    monkeypatch.setenv("MILLSTREAM_LOG", str(log_directory))

    def command(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = invoke([str(each) for each in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out
        return code, printed.out, printed.err

    return command


@pytest.fixture
def clicks(millstream: Command) -> None:
    """A topic of eight clicks of two users, ten minutes apart."""
    lines = [
        {"time": f"2024-01-01T{10 + i // 6:02}:{i % 6}0:00Z", "user": "ab"[i % 2], "n": i}
        for i in range(8)
    ]
    text = "\n".join(json.dumps(line) for line in lines).encode()
    code, _, error = millstream("produce", "clicks", "--create", "--time", "time", stdin=text)
    assert code == 0, error
