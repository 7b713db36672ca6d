"""Flips bits of every file of a small log, and cuts it, and reads what is left of it.

    python -m tests.log.damage_process [--every 1] [--only control]

A damaged library call may kill the process or ask for all memory there is: then this process dies
and its caller sees that. It prints a line for each kind of file, and ends with 1 where a wrong row
was served or an error was none of Millstream's.
"""

from __future__ import annotations

import argparse
import copy
import random
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.errors import MillstreamError
from millstream.log import Log
from millstream.storage_memory import MemoryDisk
from millstream.storage_memory.contents import FileContent, Folder

MEMORY_MAX = 4 * 1024**3
SCHEMA = pa.schema([("id", pa.int64()), ("word", pa.dictionary(pa.int8(), pa.string()))])
PLACES = (("plain", 0), ("plain", 1), ("table", 0), ("moved", 0))
Rows = dict[tuple[str, int], list[dict[str, Any]]]


def make_log(disk: MemoryDisk) -> None:
    """Write a log that has a file of every kind, compressed and compacted ones too."""
    log = Log("/log", storage=disk.storage("writer"), clock=ManualClock())
    small = {"segment.bytes": 1_400}
    log.create_topic("plain", SCHEMA, partitions=2, config={**small, "compression.type": "zstd"})
    log.create_topic("table", SCHEMA, key=["id"], table=True, config=small)
    moved = {"remote.storage.place": "/store", "local.retention.bytes": 0, **small}
    log.create_topic("moved", SCHEMA, config=moved)
    named = log.producer("plain", name="n")
    for number in range(4):
        words = pa.array([f"word {number}", "other"], SCHEMA.field("word").type)
        rows = pa.record_batch([pa.array([number, number + 4]), words], schema=SCHEMA)
        named.append(rows, partition=number % 2, headers=[{"h": b"1"}, None])
        with log.transaction("owner") as transaction:
            transaction.append("moved", rows)
            transaction.append("table", rows)
    named.flush()
    log.producer("table").delete(pa.table({"id": [2]}))
    log.topic("table").partition(0).sync()
    log.clean()
    with log.consumer("plain", group="g", auto_commit=False) as consumer:
        consumer.poll()
        consumer.commit()


def read_log(disk: MemoryDisk, found: Rows) -> dict[Any, int]:
    """Put all rows that are served into `found`, and return what the group has committed."""
    log = Log("/log", storage=disk.storage("reader"), clock=ManualClock())
    for topic, partition in PLACES:
        columns = ["id", "word", "_offset", "_headers"]
        reader = log.topic(topic).reader(partition, columns=columns)
        rows = found.setdefault((topic, partition), [])
        while (batch := reader.read_table(rows_max=1)) is not None:
            rows += batch.to_pylist()
    log.topic("plain").to_arrow(where=("id", ">", 4))
    return dict(log.group("g").committed())


def write_log(disk: MemoryDisk) -> None:
    """Go on with the log, as its next user does."""
    log = Log("/log", storage=disk.storage("next"), clock=ManualClock())
    for topic, partition in PLACES[:3]:
        rows = pa.table({"id": [100]})
        with log.producer(topic, name="n") as producer:
            producer.append(rows, partition=partition)
    with log.transaction("owner") as transaction:
        transaction.append("moved", pa.table({"id": [100]}))


def files(folder: Folder, path: str = "") -> Iterator[tuple[str, FileContent]]:
    for name, node in sorted(folder.entries.items()):
        if isinstance(node, Folder):
            yield from files(node, f"{path}/{name}")
        elif not name.endswith(".lock"):
            yield f"{path}/{name}", node


def kind_of(path: str) -> str:
    """Return of which kind a file is."""
    name = path.rpartition("/")[2]
    return name[20:] if name[:20].isdigit() else "cache" if "/cache/" in path else name


class Damage:
    """Tries out damage of one log, and counts what became of it."""

    def __init__(self) -> None:
        self.disk = MemoryDisk(random.Random(1))
        make_log(self.disk)
        self.root = self.disk.root
        self.expected: Rows = {}
        self.disk.root = copy.deepcopy(self.root)
        self.committed = read_log(self.disk, self.expected)
        self.wrong: list[str] = []

    def try_out(self, path: str, content: bytes, what: str) -> str:
        """Read the log with another content of one file; return `"detected"` or `"harmless"`."""
        self.disk.root = copy.deepcopy(self.root)
        node = dict(files(self.disk.root))[path]
        node.content, node.size = bytearray(content), len(content)
        found: Rows = {}
        outcome = "harmless"
        # With one of its two slots lost, a control file tells an end that was the end before.
        is_older = path.endswith("/control")
        try:
            if read_log(self.disk, found) != self.committed and not is_older:
                self.wrong.append(f"{path}, {what}: other offsets are committed")
        except MillstreamError:
            outcome = "detected"
        except BaseException as error:
            self.wrong.append(f"{path}, {what}: {type(error).__name__}: {error}")
            return "wrong"
        for place, rows in self.expected.items():
            got = found.get(place, [])
            if got != rows[: len(got)] or (outcome == "harmless" and not is_older and got != rows):
                self.wrong.append(f"{path}, {what}: {place} has {got[:3]} …")
                return "wrong"
        try:
            write_log(self.disk)
        except MillstreamError:
            return outcome
        except BaseException as error:
            self.wrong.append(f"{path}, {what}, writing on: {type(error).__name__}: {error}")
        return outcome

    def run(self, every: int, only: str) -> None:
        """Try out every bit (each `every`-th byte's next one) and every length of each file."""
        for path, node in list(files(self.root)):
            if only and only not in path:
                continue
            content = node.read()
            counts: Counter[str] = Counter()
            size = len(content.rstrip(b"\0")) + 64  # mapped files are mostly zeros
            for position in range(every // 2, min(size, len(content)), every):
                for bit in range(8) if every == 1 else (position % 8,):
                    flipped = bytearray(content)
                    flipped[position] ^= 1 << bit
                    counts[self.try_out(path, bytes(flipped), f"bit {bit} of {position}")] += 1
                cut = self.try_out(path, content[:position], f"cut to {position}")
                counts[f"cut {cut}"] += 1
            sys.stdout.write(f"{kind_of(path):14} {len(content):6} {dict(counts)} {path}\n")
            sys.stdout.flush()


def main() -> None:
    """Damage every file; end with 1 where something wrong came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only each so many bytes (1: all)")
    parser.add_argument("--only", default="", help="only files with this in their path")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    damage = Damage()
    damage.run(options.every, options.only)
    for each in damage.wrong:
        sys.stdout.write(f"WRONG {each[:400]}\n")
    sys.exit(bool(damage.wrong))


if __name__ == "__main__":
    main()
