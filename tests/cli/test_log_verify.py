"""`millstream log verify` and `repair`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.mark.usefixtures("clicks")
def test_a_whole_log_and_a_damaged_one(millstream: Command, log_directory: Path) -> None:
    code, out, error = millstream("log", "verify")
    assert (code, out) == (0, "all rows are whole\n")
    assert error.startswith("checked 8 rows, ")
    segment = log_directory / "topics" / "00000001" / "0" / "0" / f"{0:020d}.arrows"
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    code, out, error = millstream("log", "verify", "clicks")
    assert code == 1
    assert out.startswith("clicks/0: the rows from offset 7 on cannot be read")
    assert str(segment) in out
    assert "rows are lost in clicks/0; restore the log from a backup" in error
    code, _, error = millstream("log", "verify", "click")
    assert (code, "did you mean 'clicks'" in error) == (2, True)


@pytest.mark.usefixtures("clicks")
def test_a_damaged_topic_is_repaired(
    millstream: Command, log_directory: Path, tmp_path: Path
) -> None:
    assert millstream("log", "repair", "clicks")[2] == "clicks: nothing is damaged\n"
    millstream("log", "backup", tmp_path / "spare")
    segment = log_directory / "topics" / "00000001" / "0" / "0" / f"{0:020d}.arrows"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1] + b"?")
    code, out, _ = millstream("log", "repair", "clicks", "--dry-run")
    assert (code, out) == (0, f"clicks/0: rows 7 to 7 would be lost, 7 of {segment} are kept\n")
    code, out, _ = millstream("log", "repair", "clicks", "--from", tmp_path / "spare")
    assert code == 0
    assert out.startswith(f"clicks/0: {segment} was put right, all its rows are there; what was")
    assert segment.read_bytes() == whole
    segment.write_bytes(whole[:-1] + b"?")
    code, out, _ = millstream("log", "repair", "clicks", "--partition", "0")
    assert (code, out.startswith("clicks/0: rows 7 to 7 are lost")) == (0, True)
    assert millstream("log", "verify")[:2] == (0, "all rows are whole\n")
    assert len(millstream("consume", "clicks", "--format", "jsonl")[1].splitlines()) == 7
