"""`millstream log verify`, as a user calls it."""

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
