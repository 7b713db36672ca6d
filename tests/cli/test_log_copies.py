"""`millstream log backup|restore|mirror|promote`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.log import Log
from tests.cli.conftest import Command


@pytest.mark.usefixtures("clicks")
def test_a_backup_is_restored(millstream: Command, log_directory: Path, tmp_path: Path) -> None:
    place, copy = tmp_path / "spare", tmp_path / "copy"
    code, out, _ = millstream("log", "backup", place)
    assert (code, out.startswith("stored backup 1, taken ")) == (0, True)
    assert "1 topics" in out
    code, out, _ = millstream("log", "backups", place)
    assert (code, len(out.splitlines())) == (0, 3)
    code, out, _ = millstream("log", "restore", place, copy)
    assert (code, out.startswith("restored backup 1, taken ")) == (0, True)
    assert Log(copy).topic("clicks").to_arrow() == Log(log_directory).topic("clicks").to_arrow()
    code, _, error = millstream("log", "restore", place, copy)
    assert (code, "is not empty" in error) == (2, True)
    code, _, error = millstream("log", "restore", place, tmp_path / "new", "--number", "7")
    assert (code, "no backup 7" in error) == (2, True)


@pytest.mark.usefixtures("clicks")
def test_a_mirror_is_promoted(millstream: Command, log_directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    code, _, error = millstream("log", "mirror", copy, "--once")
    assert (code, error.startswith(f"{copy} is what {log_directory} is")) == (0, True)
    code, _, error = millstream("produce", "clicks", "--log", copy, stdin=b'{"n": 1}')
    assert (code, "is a mirror and takes no writers" in error) == (2, True)
    code, out, _ = millstream("log", "promote", copy)
    assert (code, "takes writers" in out) == (0, True)
    code, _, error = millstream("produce", "clicks", "--log", copy, stdin=b'{"n": 1}')
    assert code == 0, error
    assert Log(copy).topic("clicks").to_arrow().num_rows == 9
