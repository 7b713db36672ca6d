"""A server sends the columns that a reader wants, and what it needs to check them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

from millstream.errors import CorruptSegmentError, ProtocolError
from millstream.log import Log
from millstream.log.remote import frame_feed
from millstream.log.remote.frame_feed import FrameFeeds
from millstream.log.remote.rows import bytes_batch, bytes_of, without
from tests.log.log_kit import log_on
from tests.log.remote.remote_kit import memory_disk, remote_log, served

COUNT = 3_000
START = datetime(2024, 1, 1, tzinfo=UTC)


def wide_rows() -> pa.RecordBatch:
    """A column of each kind, each with nulls."""
    numbers = [None if each % 7 == 0 else each for each in range(COUNT)]
    words = [None if each is None else f"word {each}" for each in numbers]
    return pa.record_batch(
        {
            "at": pa.array([START + timedelta(seconds=each) for each in range(COUNT)]),
            "number": pa.array(numbers, pa.int64()),
            "flag": pa.array([None if each is None else each % 2 == 0 for each in numbers]),
            "text": pa.array(words),
            "list": pa.array([None if each is None else [each, None] for each in numbers]),
            "struct": pa.array([None if each is None else {"a": each} for each in numbers]),
            "word": pa.array(
                [None if each is None else f"w{each % 5}" for each in numbers]
            ).dictionary_encode(),
        }
    )


@pytest.fixture(params=["none", "lz4"])
def logs(request: pytest.FixtureRequest) -> Iterator[tuple[Log, Log]]:
    """The same log as a directory and at an address, with a topic in several segments."""
    disk = memory_disk()
    local = log_on(disk.storage("local"))
    rows = wide_rows()
    config = {"compression.type": request.param, "segment.bytes": 150_000}
    local.create_topic("a", rows.schema, time="at", config=config)
    producer = local.producer("a")
    for start in range(0, COUNT, 600):
        producer.append(rows.slice(start, 600))
    producer.flush()
    with served(disk) as server, remote_log(server.address) as remote:
        yield local, remote


@pytest.fixture
def sent() -> Iterator[list[int]]:
    """How many bytes the server sends."""
    sizes: list[int] = []
    read = FrameFeeds.read

    def counting(self: Any, *arguments: Any) -> Any:
        answer, content = read(self, *arguments)
        sizes.append(0 if content is None else content.size)
        return answer, content

    with mock.patch.object(FrameFeeds, "read", counting):
        yield sizes


def test_any_columns_are_the_same_as_in_a_directory(
    logs: tuple[Log, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_feed, "GAP_BYTES_MIN", 8)
    local, remote = logs
    names = [*wide_rows().schema.names, "_offset", "_timestamp"]
    chosen = [list(each) for count in (1, 2) for each in combinations(names, count)]
    for columns in random.Random(1).sample(chosen, 16):
        here, there = (each.topic("a").to_arrow(columns=columns) for each in logs)
        assert there.equals(here), columns
        where = ("number", ">", 2_500)
        here, there = (each.topic("a").to_arrow(columns=columns, where=where) for each in logs)
        assert there.equals(here), columns
        assert 0 < there.num_rows < 500
    assert remote.topic("a").to_arrow().equals(local.topic("a").to_arrow())


def test_what_nobody_wants_does_not_come(logs: tuple[Log, Log], sent: list[int]) -> None:
    _, remote = logs
    remote.topic("a").to_arrow()
    whole = sum(sent)
    sent.clear()
    remote.topic("a").to_arrow(columns=["flag"])
    assert 0 < sum(sent) < whole / 4


def test_damage_is_found_in_what_is_read_and_in_that_alone() -> None:
    disk = memory_disk()
    local = log_on(disk.storage("local"))
    rows = pa.record_batch({"a": range(1_000), "b": range(1_000)})
    local.create_topic("a", rows.schema)
    with local.producer("a") as producer:
        producer.append(rows)
    path = f"{local.topic('a').partition(0).directory}/{0:020d}.arrows"
    content = bytearray(local.storage.read_file(path))
    content[-100] ^= 1  # of column b
    local.storage.write_file(path, bytes(content))
    with served(disk) as server, remote_log(server.address) as remote:
        assert remote.topic("a").to_arrow(columns=["a"]).num_rows == 1_000
        with pytest.raises(CorruptSegmentError, match="column 'b'"):
            remote.topic("a").to_arrow(columns=["b"])


def test_gaps_are_filled_and_those_that_cannot_be_are_refused() -> None:
    content = pa.py_buffer(bytes(range(1, 101)))
    gaps = [(0, 3), (10, 5), (90, 10)]
    kept = without(content, gaps)
    assert kept.size == 82
    found = bytes(bytes_of(bytes_batch(kept), b"head", gaps))
    expected = bytearray(content)
    for position, size in gaps:
        expected[position : position + size] = bytes(size)
    assert found == b"head" + bytes(expected)
    for wrong in ([(10, 5), (9, 1)], [(83, 5)], [(-1, 5)], [(1, -1)], [(0, 2**50)], [(5, 2**62)]):
        with pytest.raises(ProtocolError, match="left out"):
            bytes_of(bytes_batch(kept), b"", wrong)
