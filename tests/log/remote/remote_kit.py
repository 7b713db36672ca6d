"""What the tests of served logs share: servers of logs in memory, in this very process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.log import Log
from millstream.log.remote.server import LogServer
from millstream.storage_memory import MemoryDisk
from tests.log.log_kit import log_on

TIMEOUT_S = 10.0


def memory_disk(seed: int = 0) -> MemoryDisk:
    return MemoryDisk(random.Random(seed))


@contextmanager
def served(disk: MemoryDisk, **options: Any) -> Iterator[LogServer]:
    """A server of the log on a disk in memory; a process of its own as far as the disk knows."""
    storage = disk.storage("server")
    server = LogServer(lambda: log_on(storage), **options)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def remote_log(address: str, **options: Any) -> Iterator[Log]:
    """The log at an address; its connection is ended."""
    from millstream.log.remote.remote_log import RemoteLog

    log = Log(address, **{"timeout_s": TIMEOUT_S, **options})
    assert isinstance(log, RemoteLog)
    try:
        yield log
    finally:
        log.close()
