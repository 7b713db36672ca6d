"""The entry point: what it says of itself, how fast, and how a failure of the machine ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from millstream.cli import topics
from millstream.cli.main import invoke
from tests.cli.conftest import Command
from tests.cli.process_kit import ROOT


def test_help_names_every_command(millstream: Command) -> None:
    code, out, _ = millstream("--help")
    assert code == 0
    for name in ("demo", "run", "topics", "produce", "consume"):
        assert f"\n  {name} " in out
    assert "..." not in out.partition("Commands:")[2], "a command's line is too long and was cut"
    for name in ("demo", "run", "produce", "consume"):
        assert millstream(name, "--help")[0] == 0
    for name in ("list", "describe"):
        assert millstream("topics", name, "--help")[0] == 0


def test_help_waits_for_no_library() -> None:
    program = (
        "import sys; from millstream.cli.main import invoke; assert invoke(['--help']) == 0; "
        "heavy = {'pyarrow', 'numpy', 'numba', 'duckdb', 'ray', 'pandas', 'matplotlib'}; "
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/data"), 1, "Permission denied: '/data'"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_of_the_machine_is_one_message(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(topics, "open_log", fail)
    assert invoke(["topics", "list"]) == code
    assert said in capsys.readouterr().err


def test_who_reads_only_the_first_lines_ends_it_quietly(log_directory: Path) -> None:
    log_directory.mkdir()
    lines = "".join(f'{{"n": {number}}}\n' for number in range(200_000))
    command = "import sys; from millstream.cli.main import main; main()"
    run = [sys.executable, "-c", command]
    options = ["--log", str(log_directory)]
    subprocess.run(
        [*run, "produce", "numbers", "--create", *options],
        input=lines,
        text=True,
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    with subprocess.Popen(
        [*run, "consume", "numbers", "--format", "jsonl", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b'{"n":0}\n'
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
