"""A log at an address beside the same log as a directory, and beside Arrow Flight with no log.

The server is another process, reached over loopback. Rows are appended to a topic of durability
`os` in batches of 64 Ki rows and of 100; a scan sums two of five columns, checksums verified.
Plain Flight carries batches of the same bytes, one stream, each acknowledged, as the log's are.
Between the bytes of a batch and the socket lie a copy at each end and two checksums; a plain
stream has neither.

The tail is measured as in `waking`: from the readable end's publication, by a writer that uses the
directory, to the row in a client that waits at the server, at 1,000 appends a second. The server
is woken, and its answer, the client's question and the answer to that cross the wire meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import flight

import millstream as ms
from benchmarks.harness import ROOT, Figure, Figures, compared, scratch_directory
from benchmarks.log.kit import BATCH_ROWS, SMALL_ROWS, batch_of, call_times, median_us, new_topic
from benchmarks.log.waking import latencies

SCANNED = ["x", "y"]


def run(quick: bool) -> Figures:
    """Measure appends, scans and the tail."""
    figures: Figures = {}
    count = 20 if quick else 100
    with scratch_directory() as directory:
        local, path = new_topic(directory / "local", "os"), directory / "served"
        new_topic(path, "os")
        with server("log", path) as address, server("plain", path) as plain_address:
            remote = ms.Log(address)
            with PlainStream(plain_address) as plain:
                for rows, name in ((BATCH_ROWS, "large"), (SMALL_ROWS, "small")):
                    figures |= appends(name, batch_of(rows), local, remote, plain, count)
            figures |= scans(local, remote)
        with server("log", directory / "tail") as address:
            appends_count = 300 if quick else 3_000
            waits_ms, _ = latencies(directory / "tail", "os", appends_count, address)
        p50, p99 = np.percentile(waits_ms, [50, 99])
        figures["tail_p50"] = Figure(float(p50), "ms", "lower")
        figures["tail_p99"] = Figure(float(p99), "ms", "lower")
    return figures


def appends(
    name: str, batch: pa.RecordBatch, local: ms.Log, remote: ms.Log, plain: PlainStream, count: int
) -> Figures:
    """Return the rows a second of each, taking turns."""
    producers = local.producer("events"), remote.producer("events")
    times = call_times(
        {
            "local": lambda: producers[0].append(batch),
            "remote": lambda: producers[1].append(batch),
            "plain": lambda: plain.send(batch),
        },
        count,
    )
    rates = {each: batch.num_rows / median_us(found) for each, found in times.items()}
    rate = rates["remote"]
    return {
        f"append_{name}": compared(rate, "M rows/s", "plain Flight", rates["plain"]),
        f"append_{name}_beside_local": compared(rate, "M rows/s", "directory", rates["local"]),
    }


def scans(local: ms.Log, remote: ms.Log) -> Figures:
    """Return the rows a second of the same topic read in both ways."""
    times = call_times({"local": lambda: scan(local), "remote": lambda: scan(remote)}, 20)
    rows = remote.topic("events").stable_ends()[0]
    rates = {each: rows / median_us(found) for each, found in times.items()}
    return {"scan": compared(rates["remote"], "M rows/s", "directory", rates["local"])}


def scan(log: ms.Log) -> float:
    """Return the sum over two columns of all rows."""
    total = 0.0
    for batch in log.consumer("events", columns=SCANNED):
        total += pc.sum(batch.column(0)).as_py() + pc.sum(batch.column(1)).as_py()
    return total


class PlainStream:
    """A Flight stream whose batches are acknowledged and thrown away."""

    def __init__(self, address: str) -> None:
        self._client = flight.FlightClient(address)
        descriptor = flight.FlightDescriptor.for_command(b"")
        self._writer, self._reader = self._client.do_put(descriptor, batch_of(1).schema)

    def send(self, batch: pa.RecordBatch) -> None:
        """Send a batch and wait for the acknowledgement."""
        self._writer.write_batch(batch)
        self._reader.read()

    def __enter__(self) -> PlainStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._client.close()


class PlainServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Acknowledges batches."""

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Take one stream."""
        for _ in reader:
            writer.write(b"")


@contextmanager
def server(kind: str, path: Path) -> Iterator[str]:
    """Start a server in a process of its own, and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.log.remote", kind, str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


def serve(kind: str, path: str) -> None:
    """Be the server, until standard input ends."""
    from millstream.log.remote.server import LogServer

    close: Callable[[], None]
    if kind == "log":
        served = LogServer(lambda: ms.Log(path))
        address, close = served.address, served.close
    else:
        plain = PlainServer("grpc://127.0.0.1:0")
        address, close = f"grpc://127.0.0.1:{plain.port}", plain.shutdown
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
