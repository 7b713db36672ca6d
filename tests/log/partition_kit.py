"""What the tests of the log's core share: small partitions, a disk that crashes, oracles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.log.partition import Partition
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.storage import AppendFile, Bytes, SharedCells
from millstream.storage_local import LocalStorage

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def rows(start: int, count: int) -> pa.RecordBatch:
    """`count` rows whose ids are their offsets, if appended at `start`."""
    numbers = range(start, start + count)
    texts = [None if i % 3 == 1 else f"row {i}" for i in numbers]
    return pa.record_batch([pa.array(numbers, pa.int64()), pa.array(texts)], schema=SCHEMA)


def open_partition(path: Path | str, schema: pa.Schema = SCHEMA, **options: Any) -> Partition:
    options.setdefault("storage", LocalStorage())
    options.setdefault("clock", ManualClock(1_000_000))
    options.setdefault("name", "flights/2")
    if "segment_bytes" in options:
        settings = TopicSettings(segment_bytes=options.pop("segment_bytes"))
        options["settings"] = LiveSettings(settings)
    return Partition(str(path), schema, **options)


def read_all(
    partition: Partition, offset: int = 0, columns: Sequence[str] | None = None
) -> pa.Table:
    """Every readable row, whole frames from the one that holds `offset`."""
    cursor = partition.frames(offset)
    batches = []
    while (frame := cursor.next()) is not None:
        batches.append(frame.batch(columns))
    schema = partition.schema if columns is None else None
    return pa.Table.from_batches(batches, schema)


def read_ids(partition: Partition) -> list[int]:
    ids: list[int] = read_all(partition).column("id").to_pylist()
    return ids


class RebootedStorage(LocalStorage):
    """The same disk after the machine was started anew."""

    def __init__(self, boot: str = "another boot") -> None:
        super().__init__()
        self._boot_id = boot


class Crash(BaseException):
    """The process dies here; not an Exception, for nothing may handle it."""


class Plan:
    """Counts the effects on a disk and crashes inside or before the `fatal` one."""

    def __init__(self, fatal: int | None = None, halves: bool = False) -> None:
        self.count = 0
        self.fatal = fatal
        self.halves = halves
        self.synced: dict[str, int] = {}
        self.errors: dict[str, OSError] = {}

    def effect(self, name: str) -> bool:
        """Count an effect; return whether to do half of it and crash then."""
        if name in self.errors:
            raise self.errors[name]
        self.count += 1
        if self.fatal is not None and self.count >= self.fatal:
            if self.halves and self.count == self.fatal:
                return True
            raise Crash(name)
        return False


class CrashingFile:
    def __init__(self, path: str, file: AppendFile, plan: Plan) -> None:
        self.path = path
        self._file = file
        self._plan = plan

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    def write(self, position: int, chunks: Sequence[Bytes]) -> None:
        content = b"".join(bytes(chunk) for chunk in chunks)
        if self._plan.effect("append"):
            self._file.write(position, [content[: len(content) // 2]])
            raise Crash
        self._file.write(position, [content])

    def begin_sync(self, position: int, size_bytes: int) -> None:
        self._plan.effect("begin_sync")
        self._file.begin_sync(position, size_bytes)

    def sync(self) -> None:
        half = self._plan.effect("sync")
        self._file.sync()
        if half:
            raise Crash
        self._plan.synced[self.path] = self._file.size_bytes

    def truncate(self, size_bytes: int) -> None:
        half = self._plan.effect("truncate")
        self._file.truncate(size_bytes)
        self._plan.synced[self.path] = min(size_bytes, self._plan.synced.get(self.path, 0))
        if half:
            raise Crash

    def close(self) -> None:
        self._file.close()


class CrashingCells:
    def __init__(self, cells: SharedCells, plan: Plan) -> None:
        self._cells = cells
        self._plan = plan
        self.read = cells.read
        self.read_word = cells.read_word

    def write(self, position: int, content: bytes) -> None:
        if self._plan.effect("cells"):
            self._cells.write(position, content[: len(content) // 2])
            raise Crash
        self._cells.write(position, content)

    def write_word(self, position: int, value: int) -> None:
        self._plan.effect("cells")
        self._cells.write_word(position, value)


class CrashingStorage(LocalStorage):
    """A disk that follows a `Plan`."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def open_append(self, path: str, *, in_place: bool = False) -> Any:
        existed = self.exists(path)
        half = False if existed else self.plan.effect("create")
        file = super().open_append(path, in_place=in_place)
        if half:
            raise Crash
        if not existed:
            self.plan.synced[path] = 0
        return CrashingFile(path, file, self.plan)

    def write_file(self, path: str, content: Bytes) -> None:
        half = self.plan.effect("write_file")
        super().write_file(path, content)
        if half:
            raise Crash

    def shared_cells(self, path: str, size_bytes: int) -> Any:
        return CrashingCells(super().shared_cells(path, size_bytes), self.plan)


@contextlib.contextmanager
def crashing() -> Iterator[None]:
    """Go on behind the `with` block where the process died inside."""
    with contextlib.suppress(Crash):
        yield
