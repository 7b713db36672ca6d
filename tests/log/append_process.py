"""A process that appends to a partition; `tests/log/test_processes.py` starts and kills it.

Started as `python -m tests.log.append_process FOLDER OWNER MODE COUNT`. It says `ready`,
waits for a line, appends COUNT frames and says `acked N` when its frames up to sequence N
are durable. MODE: `finish`; `half` dies inside the last write; `unpublished` dies between
the last write and the publication of the written end; `stopped` is stopped inside the last
write, and writes the rest of it when it is continued.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from millstream.clock import SystemClock
from millstream.log.partition import Partition
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.storage import Bytes
from millstream.storage_local import LocalStorage

SCHEMA = pa.schema([("owner", pa.int64()), ("sequence", pa.int64()), ("payload", pa.binary())])
SEGMENT_BYTES = 200_000
SYNC_EVERY = 4


class DyingFile:
    """Passes everything on to `file`, and dies in the append that the class attribute says."""

    appends_left = -1
    mode = "half"

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, position: int, chunks: Sequence[Bytes]) -> None:
        if DyingFile.appends_left != 0:
            self._file.write(position, chunks)
            return
        content = b"".join(bytes(chunk) for chunk in chunks)
        middle = len(content) if DyingFile.mode == "unpublished" else len(content) // 2
        self._file.write(position, [content[:middle]])
        is_stopped = DyingFile.mode == "stopped"
        os.kill(os.getpid(), signal.SIGSTOP if is_stopped else signal.SIGKILL)
        self._file.write(position + middle, [content[middle:]])


class DyingStorage(LocalStorage):
    def open_append(self, path: str, *, in_place: bool = False) -> Any:
        return DyingFile(super().open_append(path, in_place=in_place))


def frame(owner: int, sequence: int) -> pa.RecordBatch:
    """The rows of one frame: up to 50, of up to 800 bytes each."""
    count = 1 + sequence % 50
    payload = bytes([owner]) * (100 + 37 * (sequence % 20))
    columns = [[owner] * count, [sequence] * count, [payload] * count]
    return pa.record_batch(
        [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(folder: str, owner: int, mode: str, count: int) -> None:
    partition = Partition(
        folder,
        SCHEMA,
        storage=DyingStorage(),
        clock=SystemClock(),
        settings=LiveSettings(TopicSettings(segment_bytes=SEGMENT_BYTES)),
        name="shared/0",
    )
    DyingFile.mode = mode
    say("ready")
    sys.stdin.readline()
    for sequence in range(count):
        if sequence == count - 1 and mode != "finish":
            DyingFile.appends_left = 0
        partition.append(frame(owner, sequence), owner_id=owner, sequence=sequence)
        if sequence % SYNC_EVERY == SYNC_EVERY - 1:
            partition.sync()
            say(f"acked {sequence}")
    partition.sync()
    say(f"acked {count - 1}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
