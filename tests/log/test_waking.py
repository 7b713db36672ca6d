"""A waiting reader is woken by other processes, every time, and costs nothing until then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import pytest

from millstream.log import Log, bells
from tests.log.log_kit import SCHEMA, ids_of
from tests.log.processes import WriterProcess

COUNT = 60


@pytest.mark.parametrize("task", ["append:fsync", "append:os", "transact"])
def test_no_row_of_another_process_is_slept_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    # One lost call, and the test waits for as long as this.
    monkeypatch.setattr(bells, "LOOK_AGAIN_US", 600_000_000)
    log = Log(tmp_path)
    durability: Literal["fsync", "os"] = "os" if task == "append:os" else "fsync"
    for name in ("a", "b"):
        log.create_topic(name, SCHEMA, partitions=2, durability=durability)
    consumer = log.consumer("a")
    is_transaction = task == "transact"
    expected = [each for each in range(COUNT) if not is_transaction or each % 3 != 2]
    found: list[int] = []
    with WriterProcess(tmp_path, task if is_transaction else "append:0", COUNT) as writer:
        writer.go()
        while len(found) < len(expected):
            batch = consumer.poll(timeout_us=60_000_000, rows_max=1)
            assert batch is not None, f"waited for nothing after {found[-3:]}"
            found += ids_of(batch)
    assert sorted(found) == expected


def test_waiting_takes_no_processor_time(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.create_topic("a", SCHEMA, partitions=4)
    consumer = log.consumer("a")
    start = time.process_time()
    assert consumer.poll(timeout_us=500_000) is None
    assert time.process_time() - start < 0.1
