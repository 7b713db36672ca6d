"""Flips every bit of one small file of each kind, and cuts it to every length.

    python -m tests.log.flip_process [--only topic.json]

Each file is read by what reads it, alone, so that a trial is cheap; `damage_process` reads the
whole log around it. A damaged library call may kill the process: then this one dies, and its caller
sees that. It prints a line for each kind of file, and ends with 1 where something wrong was served.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.errors import MillstreamError
from millstream.log import Log
from millstream.log.backup import Mirror, back_up
from millstream.log.backup.vault import Vault
from millstream.log.columns import SegmentLayouts
from millstream.log.erasure import BegunErasure, EraseJournal
from millstream.log.frame_header import Damage
from millstream.log.groups.folder import GroupFolder
from millstream.log.index import SegmentIndex, encoded_statistics
from millstream.log.log_file import read_log_file
from millstream.log.partition import Partition
from millstream.log.segment import Segment
from millstream.log.sequences import Sequences
from millstream.log.tier.moved_segment import read_moved
from millstream.log.topic_config import TopicConfig
from millstream.storage_memory import MemoryDisk
from millstream.storage_memory.contents import FileContent
from millstream.storage_objects import open_objects
from tests.log.damage_process import MEMORY_MAX, SCHEMA, files, kind_of, make_log

TOPIC = "/log/topics/00000001"
Read = Callable[[bytes], Any]
"""Reads a file, which has this content now; raises where it finds damage."""


class DamageError(MillstreamError):
    """Raised where a reader found damage that it tells in another way."""


class Flips:
    """A log with a file of each kind, and what reads each of them.

    Parameters
    ----------
    only
        A part of the path of the files that are damaged.
    """

    def __init__(self, only: str) -> None:
        self._only = only
        self.disk = MemoryDisk(random.Random(1))
        make_log(self.disk)
        self.storage = self.disk.storage("reader")
        self.clock = ManualClock()
        self.log = Log("/log", storage=self.storage, clock=self.clock)
        back_up(self.log, "/spare")
        with Mirror(self.log, "/mirror", self.storage):
            pass  # it is one from now on
        begun = BegunErasure(pa.table({"id": [2, 3]}), {(1, 0): 7})
        EraseJournal(self.storage, TOPIC).write([begun])
        self.paths = dict(files(self.disk.root))
        self.wrong: list[str] = []

    def run(self) -> None:
        """Damage one file after another."""
        for path, read in self.readers():
            if self._only not in path:
                continue
            started_s = time.process_time()
            node = self.paths[path]
            content = node.read()
            expected = read(content)
            counts: Counter[str] = Counter()
            for what, damaged in damages(content):
                self._put(node, damaged)
                counts[self._try(read, damaged, expected, f"{path}, {what}")] += 1
            self._put(node, content)
            assert read(content) == expected, path
            seconds = time.process_time() - started_s
            sys.stdout.write(f"{kind_of(path)} {len(content)} {dict(counts)} {seconds:.1f} s\n")

    def _put(self, node: FileContent, content: bytes) -> None:
        node.content, node.size = bytearray(content), len(content)

    def _try(self, read: Read, content: bytes, expected: Any, what: str) -> str:
        try:
            found = read(content)
        except MillstreamError:
            return "detected"
        except BaseException as error:
            self.wrong.append(f"{what}: {type(error).__name__}: {error}")
            return "wrong"
        if found != expected:
            self.wrong.append(f"{what}: {found}")
            return "wrong"
        return "harmless"

    def first(self, ending: str, folder: str = "/log") -> str:
        """Return the first file in `folder` that ends so."""
        return next(
            each for each in self.paths if each.startswith(folder) and each.endswith(ending)
        )

    def readers(self) -> Iterator[tuple[str, Read]]:
        """Yield a file of each kind, and what reads it."""
        storage = self.storage
        yield "/log/log.json", lambda _: read_log_file(storage, "/log")
        yield f"{TOPIC}/topic.json", lambda content: TopicConfig.from_file(content, "topic.json")
        yield f"{TOPIC}/erasing.json", lambda _: EraseJournal(storage, TOPIC).read()
        yield "/mirror/mirror.json", lambda _: bool(Mirror(self.log, "/mirror", storage))
        group = GroupFolder("/log", "g", storage, self.clock)
        yield f"{group.directory}/state.json", lambda _: group.read()
        moved = self.first(".moved")
        folder, _, name = moved.rpartition("/")
        yield moved, lambda _: read_moved(storage, folder, int(name[:20]))
        vault = Vault(open_objects("/spare", storage))
        yield "/spare/backups/00000001.json", lambda _: vault.manifest(1)
        piece = vault.manifest(1).files[0].pieces[0]
        yield f"/spare/pieces/{piece.sha256[:2]}/{piece.sha256}", lambda _: vault.load(piece)
        yield self.first(".index"), read_index
        sequences = max(
            (each for each in self.paths if each.endswith(".producers")),
            key=lambda each: self.paths[each].size,
        )
        base = int(sequences.rpartition("/")[2][:20])
        yield sequences, lambda content: decoded(Sequences.try_decode(content, base))
        yield from self.segment_readers()

    def segment_reader(self, partition: Partition) -> tuple[str, Read]:
        """Return the first segment of a partition, and what reads it."""
        path = self.first(".arrows", partition.directory)
        size, layouts = self.paths[path].size, SegmentLayouts(partition.schema)

        def read(content: bytes) -> list[pa.RecordBatch]:
            if len(content) < size:  # the partition knows how long it is
                return read_all(partition)
            segment = decoded(Segment.try_open("p", path, pa.py_buffer(content), layouts, 0))
            frames = segment.walk(segment.head.size_bytes, 0)
            return [decoded(frame).batch() for frame in frames]

        return path, read

    def segment_readers(self) -> Iterator[tuple[str, Read]]:
        """Yield segments: of rows, compressed and compacted ones, of decisions and of offsets."""
        for topic in ("plain", "table"):
            partition = self.log.topic(topic).partition(0)
            yield self.segment_reader(partition)
        # A control topic of its own, for that of the log is not small.
        small = Log("/small", storage=self.storage, clock=self.clock)
        small.create_topic("a", SCHEMA)
        writer = small.transactions.writer("owner")
        small.transactions.prepare(writer, 1, [("a", 0)])
        small.transactions.decide(writer, 1, "commit", b'{"n": 1}')
        self.paths = dict(files(self.disk.root))
        control = small.transactions.partition()
        assert control is not None
        for partition in (control, *self.log.group_partitions()):
            yield self.segment_reader(partition)
        moved = self.log.topic("moved").partition(0)

        def fetched(_: bytes) -> list[pa.RecordBatch]:
            for name in self.storage.list_directory("/log/cache"):
                self.storage.remove(f"/log/cache/{name}")
            frame = moved.frames(0).next()
            assert frame is not None
            return [frame.batch()]

        yield self.first("", "/store/"), fetched


def read_all(partition: Partition) -> list[pa.RecordBatch]:
    """Return all rows of a partition."""
    cursor = partition.frames(0)
    found = []
    while (frame := cursor.next()) is not None:
        found.append(frame.batch())
    return found


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the content with each bit flipped, and cut to each length."""
    damaged = bytearray(content)
    for position in range(len(content)):
        for bit in range(8):
            damaged[position] ^= 1 << bit
            yield f"bit {bit} of {position}", bytes(damaged)
            damaged[position] ^= 1 << bit
        yield f"cut to {position}", content[:position]


def decoded(found: Any) -> Any:
    """Return what was decoded; raise where it is damage: then it is made anew."""
    if isinstance(found, Damage):
        raise DamageError(found.reason)
    return found


def read_index(content: bytes) -> tuple[SegmentIndex, bytes]:
    """Return an index and the statistics behind it."""
    return decoded(SegmentIndex.try_decode(content)), encoded_statistics(content)


def main() -> None:
    """Damage every file; end with 1 where something wrong came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only files with this in their path")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    flips = Flips(options.only)
    flips.run()
    for each in flips.wrong:
        sys.stdout.write(f"WRONG {each[:400]}\n")
    sys.exit(bool(flips.wrong))


if __name__ == "__main__":
    main()
