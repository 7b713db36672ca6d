from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from tests.cli.conftest import Command


@pytest.mark.usefixtures("clicks")
def test_each_partition_is_shown_with_its_rows_and_times(
    millstream: Command, log_directory: Path
) -> None:
    Log(log_directory).create_topic("empty", pa.schema([("n", pa.int64())]), partitions=2)
    code, out, _ = millstream("log", "stats")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[2:]]
    assert rows[0][:4] == ["clicks", "0", "8", "1"]
    assert rows[0][6:] == ["2024-01-01", "10:00:00", "2024-01-01", "11:10:00"]
    assert rows[1:] == [["empty", f"{i}", "0", "0", "0", "B", "–", "–"] for i in range(2)]
    assert millstream("log", "stats", "empty")[1].count("empty") == 2
    assert millstream("log", "stats", "click")[0] == 2
