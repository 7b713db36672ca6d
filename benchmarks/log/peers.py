"""Appends of 1,000-record batches of 100-byte records: the log beside others, in one run.

Each with and without a sync to the disk per batch. They take turns, a few batches each: a disk, and
the fresh memory of a virtual machine, are several times slower in one second than in the next.

The raw file and the Arrow IPC stream promise
nothing but their bytes; SQLite (write-ahead log, `synchronous` FULL or OFF) and LMDB (`sync` on or
off) and RocksDB keep one batch as a value, SQLite also each record as a row.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

import millstream as ms
from benchmarks.harness import Figure, Figures, scratch_directory
from benchmarks.log.kit import PlainFile

RECORDS = 1_000
RECORD_BYTES = 100
TURN_BATCHES = 10

Append = Callable[[], None]


def run(quick: bool) -> Figures:
    """Measure every peer; ours is told beside each of them."""
    turns = 10 if quick else 100
    figures = {}
    for synced in (False, True):
        with scratch_directory() as directory, ExitStack() as opened:
            appends: dict[str, Append] = {}
            for name, peer in PEERS.items():
                try:
                    appends[name] = opened.enter_context(peer(directory, synced))
                except ImportError as error:
                    sys.stderr.write(f"log.peers: {name} is left out: {error}\n")
            rates = rates_of(appends, turns)
        suffix = "fsync" if synced else "no_sync"
        ours = rates.pop("millstream")
        for name, other in rates.items():
            figures[f"{name}_{suffix}"] = Figure(other, "records/s")
            goal = None if name == "raw_file" else 1.0
            figures[f"millstream_{suffix}_beside_{name}"] = Figure(
                ours, "records/s", "higher", name, ours / other, goal
            )
    return figures


def rates_of(appends: dict[str, Append], turns: int) -> dict[str, float]:
    """Return the records a second of each, by the median of its turns."""
    times: dict[str, list[float]] = {name: [] for name in appends}
    for turn in range(turns + 1):
        for name, append in appends.items():
            start = time.perf_counter()
            for _ in range(TURN_BATCHES):
                append()
            if turn:  # the first makes files and tables
                times[name].append(time.perf_counter() - start)
    return {name: RECORDS * TURN_BATCHES / statistics.median(each) for name, each in times.items()}


def records() -> list[bytes]:
    """Return the records of a batch."""
    return [os.urandom(RECORD_BYTES) for _ in range(RECORDS)]


@contextmanager
def millstream(directory: Path, synced: bool) -> Iterator[Append]:
    """Append to the log, in a topic of one column."""
    log = ms.Log(directory / "log")
    batch = pa.record_batch({"record": pa.array(records(), pa.binary(RECORD_BYTES))})
    log.create_topic("events", batch.schema, durability="fsync" if synced else "os")
    with log.producer("events") as producer:

        def append() -> None:
            producer.append(batch)
            if synced:
                producer.flush()

        yield append


@contextmanager
def raw_file(directory: Path, synced: bool) -> Iterator[Append]:
    """Write each batch to a file."""
    file = PlainFile(directory / "raw")
    content = b"".join(records())

    def append() -> None:
        file.write(content)
        if synced:
            file.sync()

    yield append
    file.close()


@contextmanager
def arrow_ipc(directory: Path, synced: bool) -> Iterator[Append]:
    """Write each batch to an Arrow IPC stream in a file."""
    batch = pa.record_batch({"record": pa.array(records(), pa.binary(RECORD_BYTES))})
    with (
        (directory / "ipc").open("wb", buffering=0) as file,
        pa.ipc.new_stream(file, batch.schema) as writer,
    ):

        def append() -> None:
            writer.write_batch(batch)
            if synced:
                os.fdatasync(file.fileno())

        yield append


@contextmanager
def sqlite(directory: Path, synced: bool, name: str) -> Iterator[sqlite3.Connection]:
    """Open a database with a table of its own."""
    database = sqlite3.connect(directory / f"{name}.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={'FULL' if synced else 'OFF'}")
    database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, record BLOB)")
    yield database
    database.close()


@contextmanager
def sqlite_blobs(directory: Path, synced: bool) -> Iterator[Append]:
    """Insert a batch as a row of SQLite."""
    content = b"".join(records())
    with sqlite(directory, synced, "blobs") as database:

        def append() -> None:
            database.execute("INSERT INTO events (record) VALUES (?)", (content,))

        yield append


@contextmanager
def sqlite_rows(directory: Path, synced: bool) -> Iterator[Append]:
    """Insert each record as a row of SQLite."""
    rows = [(each,) for each in records()]
    with sqlite(directory, synced, "rows") as database:

        def append() -> None:
            database.execute("BEGIN")
            database.executemany("INSERT INTO events (record) VALUES (?)", rows)
            database.execute("COMMIT")

        yield append


@contextmanager
def lmdb_values(directory: Path, synced: bool) -> Iterator[Append]:
    """Put a batch as a value into LMDB."""
    lmdb: Any = importlib.import_module("lmdb")
    environment = lmdb.open(str(directory / "lmdb"), map_size=64 * 1024**3, sync=synced)
    content = b"".join(records())
    number = iter(range(1 << 60))

    def append() -> None:
        with environment.begin(write=True) as transaction:
            transaction.put(next(number).to_bytes(8, "big"), content, append=True)

    yield append
    environment.close()


@contextmanager
def rocksdb_values(directory: Path, synced: bool) -> Iterator[Append]:
    """Put a batch as a value into RocksDB, write-ahead log on."""
    rocksdict: Any = importlib.import_module("rocksdict")
    database = rocksdict.Rdict(str(directory / "rocksdb"), rocksdict.Options(raw_mode=True))
    options = rocksdict.WriteOptions()
    options.sync = synced
    content = b"".join(records())
    number = iter(range(1 << 60))

    def append() -> None:
        database.put(next(number).to_bytes(8, "big"), content, write_opt=options)

    yield append
    database.close()


PEERS: dict[str, Any] = {
    "millstream": millstream,
    "raw_file": raw_file,
    "arrow_ipc": arrow_ipc,
    "sqlite_blobs": sqlite_blobs,
    "sqlite_rows": sqlite_rows,
    "lmdb": lmdb_values,
    "rocksdb": rocksdb_values,
}
