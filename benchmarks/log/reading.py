"""Reading less: two of ten columns, segments refused by their statistics, and what those cost.

- Two of ten int64 columns of a topic, their checksums verified, summed; beside CRC-32C and the
  same sum over the same columns in memory, batch by batch.
- 100 GB of segments whose statistics refuse a condition: sparse files of a segment's size with a
  real head and a real index file. No byte behind the heads is there to be read.
- Statistics of a sealed segment, beside the append of its batches in durability `os`.
"""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from crc32c import crc32c

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, scratch_directory, seconds_of
from millstream.log.control_file import LogEnd
from millstream.log.index import SegmentIndex, encoded_statistics, index_file_name
from millstream.log.partition import Partition
from millstream.log.segment import SegmentHead, encode_head, segment_file_name, try_head
from millstream.log.skipping import store_statistics
from millstream.log.topic import Topic

ROWS = 65_536
COLUMNS = [f"c{index}" for index in range(10)]
SEGMENT_BYTES = 256 * 1024 * 1024
TOTAL_BYTES = 100 * 1000**3
REPEATS = 5


def batch_of(seed: int) -> pa.RecordBatch:
    """Return rows of ten integers below 10⁹: 80 bytes each."""
    random = np.random.default_rng(seed)
    return pa.record_batch({name: random.integers(0, 10**9, ROWS) for name in COLUMNS})


def run(quick: bool) -> Figures:
    """Measure the scan, the refusal and the statistics."""
    frames = 60 if quick else 200
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        batches = [batch_of(seed) for seed in range(frames)]
        config = {"segment.bytes": SEGMENT_BYTES}
        topic = log.create_topic("events", batches[0].schema, durability="os", config=config)
        start = time.perf_counter()
        with log.producer("events") as producer:
            for batch in batches:
                producer.append(batch)
        append_s = time.perf_counter() - start
        figures = scan_figures(topic, batches)
        figures["statistics_share_of_append"] = statistics_share(topic, append_s)
        del batches
        figures |= refusal_figures(log, directory, TOTAL_BYTES // (10 if quick else 1))
    return figures


def scan_figures(topic: Topic, batches: list[pa.RecordBatch]) -> Figures:
    """Compare a scan of two columns with their checksums and sums in memory, turn by turn."""
    names = ["c2", "c7"]

    def scan() -> int:
        total = 0
        for batch in topic.to_reader(names):
            total += sum(pc.sum(column).as_py() for column in batch.columns)
        return total

    def in_memory() -> int:
        total = 0
        for batch in batches:
            for name in names:
                column = batch.column(name)
                crc32c(column.buffers()[1])
                total += pc.sum(column).as_py()
        return total

    assert scan() == in_memory()
    pairs = [
        (seconds_of(scan, repeats=1), seconds_of(in_memory, repeats=1)) for _ in range(REPEATS)
    ]
    size = len(batches) * ROWS * 16
    ours, limit = (statistics.median(each) for each in zip(*pairs, strict=True))
    return {
        "two_of_ten_columns": compared(
            size / ours, "B/s", "CRC-32C and sum in memory", size / limit, goal=0.5
        )
    }


def statistics_share(topic: Topic, append_s: float) -> Figure:
    """Return what the statistics of a sealed segment take, as a share of appending it."""
    segments = topic.partition(0)._segments
    segment = segments.open(0, segments.end())
    index = segments.index_of(segment, is_active=False)
    taken = seconds_of(lambda: store_statistics(segments, segment, index), repeats=3)
    written = sum(size for _, size in topic.partition(0).segments())
    return Figure(taken / (append_s * segment.limit / written), "", "lower")


def refusal_figures(log: ms.Log, directory: Path, total_bytes: int) -> Figures:
    """Return how long a read takes that statistics refuse all of."""
    schema = pa.schema([(name, pa.int64()) for name in COLUMNS])
    topic = log.create_topic("refused", schema, config={"segment.bytes": SEGMENT_BYTES})
    source = log.topic("events").partition(0)._segments
    model = source.read_index_file(0)
    assert model is not None
    frames = SegmentIndex.try_decode(model)
    assert isinstance(frames, SegmentIndex)
    rows = frames.end_offset
    count = total_bytes // frames.size_bytes
    grow(topic.partition(0), count, frames, encoded_statistics(model))
    first = folder_of(topic) / segment_file_name(0)  # its first frame is looked at
    shutil.copyfile(folder_of(log.topic("events")) / first.name, first)
    first.with_suffix(".index").write_bytes(model)
    with ms.Log(directory / "log").producer("refused") as producer:
        producer.append(pa.table({name: [2 * 10**9] for name in COLUMNS}))  # the one wanted
    times = []
    for _ in range(REPEATS):
        again = ms.Log(directory / "log").topic("refused")
        start = time.perf_counter()
        found = again.to_reader(["c0"], where=("c0", ">", 10**9))
        assert sum(batch.num_rows for batch in found) == 1
        times.append(time.perf_counter() - start)
    assert again.partition(0).durable_end == rows * count + 1
    return {
        "refused_by_statistics": Figure(
            statistics.median(times) * 100e9 / (count * frames.size_bytes),
            "s for 100 GB",
            "lower",
            goal=1,
        )
    }


def folder_of(topic: Topic) -> Path:
    """Return the folder of a topic's only partition."""
    return Path(topic.partition(0).directory)


def grow(partition: Partition, count: int, frames: SegmentIndex, encoded: bytes) -> None:
    """Give a partition `count` sealed segments, with an index like `frames` and statistics.

    The files are sparse behind their heads.
    """
    segments, folder = partition._segments, Path(partition.directory)
    rows = frames.end_offset
    for number in range(count):
        base = number * rows
        head = encode_head(segments.layouts.own, base, 0)
        known = try_head(memoryview(head), len(head))
        assert isinstance(known, SegmentHead)
        with (folder / segment_file_name(base)).open("wb") as sparse:
            sparse.write(head)
            sparse.truncate(frames.size_bytes)
        offsets = [base + each for each in frames.offsets]
        index = replace(
            frames, base_offset=base, head_checksum=known.checksum, end_offset=base + rows,
            offsets=offsets,
        )  # fmt: skip
        (folder / index_file_name(base)).write_bytes(index.encode(encoded))
    end = LogEnd(count * rows, 0, count * rows)
    partition._control.publish_written(end)
    partition._control.publish_durable(end)
