"""What the tests of whole logs share: logs on a disk in memory, and rows that are easy to check."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable
from contextlib import AbstractContextManager
from unittest import mock

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import LogError
from millstream.log import Log, Topic, laid_zeros, write_back
from millstream.log.partition import Partition
from millstream.log.segment import segment_file_name
from millstream.storage import Storage
from millstream.storage_memory import MemoryDisk, MemoryStorage

PATH = "/log"
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def zeros_laid_in(segment_bytes: int) -> AbstractContextManager[int]:
    """Let segments of so few bytes have zeros behind their frames."""
    return mock.patch.object(laid_zeros, "SEGMENT_BYTES_MIN", segment_bytes)


def syncs_begun_at(size_bytes: int) -> AbstractContextManager[object]:
    """Let the disk begin with frames once there are so many bytes of them."""
    return mock.patch.multiple(write_back, BEGIN_BYTES=size_bytes, PAGE_BYTES=1)


def lose_unsynced_rows(partition: Partition, storage: MemoryStorage) -> None:
    """Let a sync fail, and the kernel read anew what the disk did not take; verify what is left."""
    path = f"{partition.directory}/{segment_file_name(0)}"
    size = sum(size for _, size in partition.segments())
    storage.fail("sync", OSError(errno.EIO, os.strerror(errno.EIO)))
    with pytest.raises(LogError, match="a sync failed"):
        partition.sync()
    whole = storage.file_size(path)
    storage.shared_cells(path, whole).write(size, bytes(whole - size))
    partition.verify()


def memory_log(seed: int = 0) -> Log:
    """A log in memory, of a disk of its own."""
    return log_on(MemoryDisk(random.Random(seed)).storage("a"))


def log_on(storage: Storage) -> Log:
    """The log in `PATH` as a new process opens it."""
    return Log(PATH, storage=storage, clock=ManualClock(1_000_000))


def rows(*ids: int) -> pa.RecordBatch:
    texts = [None if each % 3 == 1 else f"row {each}" for each in ids]
    return pa.record_batch([pa.array(ids, pa.int64()), pa.array(texts, pa.string())], schema=SCHEMA)


def ids_of(table: pa.Table | pa.RecordBatch | None) -> list[int]:
    ids: list[int] = [] if table is None else table.column("id").to_pylist()
    return ids


def put(log: Log, topic: str, ids: Iterable[int], partition: int | None = None) -> None:
    """Append rows with these ids as one frame, and flush."""
    with log.producer(topic) as producer:
        producer.append(rows(*ids), partition=partition)


def read(topic: Topic, partition: int = 0, offset: int | None = None) -> list[int]:
    """The ids of all rows that a read-committed reader of one partition sees from `offset` on."""
    reader = topic.reader(partition, offset=offset)
    found = []
    while (batch := reader.read()) is not None:
        found += ids_of(batch)
    return found


def memory(log: Log) -> MemoryStorage:
    """The disk in memory that a log lies on, as its process sees it."""
    assert isinstance(log.storage, MemoryStorage)
    return log.storage


def another(log: Log) -> Log:
    """The same log in another process."""
    return log_on(memory(log).disk.storage("another"))
