"""The exchange alone: batches of 24-byte rows from every worker to every other, two processes.

Each of two workers sends a batch of 64 Ki rows (three 8-byte columns) to both in turn, over
the production exchange: its own half through memory, the other through Arrow Flight. The rate
counts every row that a worker takes.

Beside it, in the same run: a ring in shared memory between the same two processes, the batches
written into it as Arrow IPC and read from it without copying. The bound is one copy of 24 bytes
a row at the machine's memory bandwidth, and half as many for rows that stay in their process.
"""

from __future__ import annotations

import mmap
import multiprocessing as mp
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Figure, Figures, compared, main
from millstream.runtime.hosts.flight import FlightExchange
from millstream.runtime.messages import Batch, End

WORKERS = 2
BATCH_ROWS = 65_536
ROW_BYTES = 24
GOAL_ROWS = 100e6
CHANNEL_BYTES = 32 * 1024 * 1024
SLOT_BYTES = 2 * 1024 * 1024
SLOTS = 8
HEAD_BYTES = 4096


def make_batch(seed: int) -> pa.RecordBatch:
    """Return a batch of three 8-byte columns."""
    random = np.random.default_rng(seed)
    columns = [random.integers(0, 1 << 40, BATCH_ROWS) for _ in range(2)]
    return pa.record_batch([*columns, random.random(BATCH_ROWS)], names=["a", "b", "c"])


def flight_worker(worker: int, connection: Connection, batches: int) -> None:
    """Send and take batches until every worker has ended."""
    wake = threading.Event()
    failures: list[Exception] = []
    exchange = FlightExchange(
        job="benchmark",
        attempt=1,
        worker=worker,
        token="benchmark",
        limit_bytes=CHANNEL_BYTES,
        wake=wake.set,
        on_failure=failures.append,
    )
    connection.send(exchange.location)
    exchange.connect(connection.recv())
    outlets = [exchange.outlet("all", each) for each in range(WORKERS)]
    inlets = [exchange.inlet("all", each) for each in range(WORKERS)]
    batch = make_batch(worker)
    connection.send("ready")
    connection.recv()
    start = time.perf_counter()
    sent = taken = ended = 0
    while ended < WORKERS and not failures:
        wake.clear()
        progressed = False
        for inlet in inlets:
            message = inlet.peek()
            if message is None:
                continue
            inlet.take()
            progressed = True
            taken += message.rows.num_rows if isinstance(message, Batch) else 0
            ended += isinstance(message, End)
        if sent < batches and all(each.has_room() for each in outlets):
            for outlet in outlets:
                outlet.send(Batch(batch))
            sent += 1
            progressed = True
            if sent == batches:
                for outlet in outlets:
                    outlet.send(End())
        if not progressed:
            wake.wait(0.01)
    connection.send((taken, time.perf_counter() - start))
    connection.recv()
    exchange.close()


class Ring:
    """Slots in shared memory between one writer and one reader; each waits by looking again.

    Parameters
    ----------
    path
        A file that both map; in memory where the folder is.
    """

    def __init__(self, path: str) -> None:
        size = HEAD_BYTES + SLOTS * SLOT_BYTES
        with open(path, "a+b") as file:
            file.truncate(size)
            self.memory = mmap.mmap(file.fileno(), size)
        self.counts = np.ndarray((2,), dtype=np.int64, buffer=self.memory)  # written, read
        self.buffer = pa.py_buffer(self.memory)

    def try_write(self, batch: pa.RecordBatch) -> bool:
        """Write a batch into the next slot; `False`: all are full."""
        written, read = int(self.counts[0]), int(self.counts[1])
        if written - read == SLOTS:
            return False
        start = HEAD_BYTES + written % SLOTS * SLOT_BYTES
        slot = pa.py_buffer(memoryview(self.memory)[start : start + SLOT_BYTES])
        sink = pa.FixedSizeBufferWriter(slot)
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self.counts[0] = written + 1
        return True

    def try_read(self) -> int:
        """Return how many rows the next slot has, which is then free; 0: there is none."""
        written, read = int(self.counts[0]), int(self.counts[1])
        if written == read:
            return 0
        start = HEAD_BYTES + read % SLOTS * SLOT_BYTES
        batch = pa.ipc.open_stream(self.buffer.slice(start, SLOT_BYTES)).read_next_batch()
        rows = int(batch.num_rows)
        del batch
        self.counts[1] = read + 1
        return rows


def ring_worker(worker: int, connection: Connection, batches: int) -> None:
    """Do the same over a ring each way; the own half stays in the process."""
    paths: list[str] = connection.recv()
    outward, inward = Ring(paths[worker]), Ring(paths[1 - worker])
    batch = make_batch(worker)
    connection.send("ready")
    connection.recv()
    start = time.perf_counter()
    sent = taken = 0
    while sent < batches or taken < batches * BATCH_ROWS * WORKERS:
        progressed = False
        if sent < batches and outward.try_write(batch):
            sent += 1
            taken += batch.num_rows
            progressed = True
        rows = inward.try_read()
        taken += rows
        if not (progressed or rows):
            time.sleep(0.000_1)
    connection.send((taken, time.perf_counter() - start))
    connection.recv()


def rate_of(target: Any, batches: int, rings: list[str]) -> float:
    """Return rows a second that all workers of a fresh pair of processes take."""
    context = mp.get_context("spawn")
    pipes = [context.Pipe() for _ in range(WORKERS)]
    processes = [
        context.Process(target=target, args=(each, pipes[each][1], batches), daemon=True)
        for each in range(WORKERS)
    ]
    for process in processes:
        process.start()
    ends = [pipe[0] for pipe in pipes]
    shared = rings or [each.recv() for each in ends]
    for end in ends:
        end.send(shared)
    for end in ends:
        end.recv()
    for end in ends:
        end.send("go")
    found = [end.recv() for end in ends]
    for end in ends:
        end.send("bye")
    for process in processes:
        process.join(10)
        process.kill()
    return float(sum(rows for rows, _ in found) / max(seconds for _, seconds in found))


def run(quick: bool) -> Figures:
    """Measure both ways in turn, several times."""
    batches, repeats = (200, 1) if quick else (1_500, 5)
    flight, ring = [], []
    for _ in range(repeats):
        flight.append(rate_of(flight_worker, batches, []))
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            ring.append(rate_of(ring_worker, batches, [f"{folder}/{i}" for i in range(WORKERS)]))
    flight_rate, ring_rate = float(np.median(flight)), float(np.median(ring))
    return {
        "all_to_all": Figure(flight_rate, "rows/s", goal=GOAL_ROWS),
        "share_of_ring": compared(flight_rate, "rows/s", "a ring in shared memory", ring_rate),
        "ring": Figure(ring_rate, "rows/s"),
    }


if __name__ == "__main__":
    main(run, __doc__)
