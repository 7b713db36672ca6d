"""What a disk refuses, wherever it does, is told by an error that names what was not done."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.errors import LogError, OptionError
from millstream.log import Log
from millstream.log.backup import Mirror, back_up, restore
from tests.log.log_kit import SCHEMA, log_on, memory, memory_log, put, rows
from tests.log.schedules import error_of

CALLS = ("append", "sync", "truncate", "write_file", "create", "make_directory", "remove", "rename",
    "sync_directory")  # fmt: skip


def open_partitions(log: Log) -> object:
    return log.topic("fresh").partitions_of(0), log.topic("a").partition(0)


def clean(log: Log) -> object:
    return log.clean()


def erase(log: Log) -> object:
    return log.erase("t", pa.table({"id": pa.array([1], pa.int64())}))


def back_up_first(log: Log) -> object:
    return back_up(log, "/vault")


def restore_first(log: Log) -> object:
    with suppress(OptionError):  # it is done: to say so durably was refused
        restore("/backup", "/restored", log.storage)
    return Log("/restored", storage=log.storage).topic("t").to_arrow()


def mirror(log: Log) -> object:
    with Mirror(log, "/mirror", log.storage) as mirrored:
        return mirrored.step()


def busy_log() -> Log:
    """With a topic to open, rows to remove, to compact and to erase, and a backup."""
    log = memory_log()
    log.create_topic("fresh", SCHEMA, partitions=2)
    small = {"segment.bytes": 1_000}
    log.create_topic("a", SCHEMA, config={**small, "retention.bytes": 1})
    log.create_topic("t", SCHEMA, key=["id"], table=True, config=small)
    for _ in range(4):
        put(log, "a", range(10))
        log.producer("t").append(rows(*range(10)))
    log.producer("t").flush()
    back_up(log, "/backup")
    return log


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (open_partitions, r"opening partition (fresh/\d|a/0) in /log/topics/\w+/0/\d"),
        (clean, r"cleaning (partition [at]/0 in /log/topics/\w+/0/0|topic '[at]')"),
        (erase, r"(cleaning partition t/0 in /log/topics/\w+/0/0|erasing keys of topic 't')"),
        (back_up_first, r"backing up (the log /log into /vault|topics/\w+/0/0/\w+.arrows, of)"),
        (restore_first, "restoring the backup in /backup into /restored"),
        (mirror, "mirroring /log into /mirror"),
    ],
)
def test_it_is_told_wherever_it_happens_and_is_done_later(
    work: Callable[[Log], object], told: str
) -> None:
    log = busy_log()
    refused = 0
    messages = set()
    for call in CALLS:
        for after in (0, 1, 2, 4, 8, 16):
            disk = memory(log).disk.copy(memory(log).disk.chooser)
            disk.power_cut()  # who opens a partition next has to recover it
            storage = disk.storage("x")
            there = log_on(storage)
            storage.fail(call, error_of(errno.ENOSPC), after)
            try:
                work(there)
            except LogError as error:
                refused += 1
                messages.add(re.sub(r"\d", "0", str(error)))
                work(log_on(disk.storage("y")))
            else:
                break
    assert refused > 1
    for message in messages:
        assert "No space left on device" in message or "the disk refused" in message
    assert any(re.match(told, each) for each in messages), messages
    assert any("make room on the disk, " in each for each in messages)


def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.create_topic("a", SCHEMA)
    put(log, "a", [1])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match=r"backing up the log .* move it away"):
        back_up(log, f"{tmp_path}/file/vault")
