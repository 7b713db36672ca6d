"""Flips and cuts of frames with dictionaries, compressed, of more columns: never a wrong row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millstream.errors import CorruptSegmentError
from millstream.log.columns import HEADERS_FIELD
from millstream.log.segment import segment_file_name
from millstream.log.settings import LiveSettings, TopicSettings
from tests.log.partition_kit import RebootedStorage, open_partition, read_all
from tests.log.test_bit_flips import flips

COLOURS = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("colour", pa.dictionary(pa.int8(), pa.string())),
        pa.field("tags", pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ]
)


def colours(start: int, *names: str | None) -> pa.RecordBatch:
    columns = [
        pa.array(range(start, start + len(names)), pa.int64()),
        pa.array(names, COLOURS[1].type),
        pa.array([[each] for each in names], COLOURS[2].type),
    ]
    return pa.record_batch(columns, schema=COLOURS)


BATCHES = [colours(0, "red", "green", None), colours(3, "blue", "red")]
ROWS: list[dict[str, Any]] = [row for batch in BATCHES for row in batch.to_pylist()]


@pytest.fixture(params=["none", "zstd"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    settings = LiveSettings(TopicSettings(compression_type=request.param))
    partition = open_partition(tmp_path / "0", COLOURS, settings=settings)
    for batch in BATCHES:
        partition.append(batch)
    partition.sync()
    return tmp_path / "0"


def some_flips(path: Path) -> Iterator[tuple[int, int]]:
    """Flip one bit of each byte, and back; every flip of a plain segment is tested elsewhere."""
    return (place for place in flips(path) if place[1] == place[0] % 8)


def served(partition: Any, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    cursor = partition.frames(0)
    while (frame := cursor.next()) is not None:
        yield from frame.batch(columns).to_pylist()


def test_a_flip_anywhere_is_detected(folder: Path) -> None:
    partition = open_partition(folder, COLOURS)
    for place in some_flips(folder / segment_file_name(0)):
        found: list[dict[str, Any]] = []
        with pytest.raises(CorruptSegmentError, match="flights/2"):
            found += served(partition)
            pytest.fail(f"not detected: {place}")
        assert found == ROWS[: len(found)], place


@pytest.mark.parametrize("columns", [["id"], ["colour"]])
def test_a_flip_in_a_column_that_is_not_read_harms_nobody(folder: Path, columns: list[str]) -> None:
    partition = open_partition(folder, COLOURS)
    wanted = [{name: row[name] for name in columns} for row in ROWS]
    harmless = 0
    for place in some_flips(folder / segment_file_name(0)):
        try:
            found = list(served(partition, columns))
        except CorruptSegmentError:
            continue
        harmless += 1
        assert found == wanted, place
    assert harmless > 100


def test_a_cut_anywhere_leaves_whole_frames(folder: Path, tmp_path: Path) -> None:
    content = (folder / segment_file_name(0)).read_bytes()
    for size in range(0, len(content), 48):
        (folder / "control").unlink(missing_ok=True)
        (folder / segment_file_name(0)).write_bytes(content[:size])
        partition = open_partition(folder, COLOURS)
        assert list(served(partition)) == ROWS[: partition.durable_end]
        assert partition.durable_end in {0, 3}
        partition.append(colours(7, "blue"))
        partition.sync()
        assert list(served(partition))[-1]["id"] == 7


def test_a_power_cut_does_not_turn_a_flip_into_a_cut(folder: Path) -> None:
    path = folder / segment_file_name(0)
    size = path.stat().st_size
    for position, _ in some_flips(path):
        if position % 7:  # recovery syncs, so this is slower
            continue
        with pytest.raises(CorruptSegmentError):
            open_partition(folder, COLOURS, storage=RebootedStorage())
        assert path.stat().st_size == size


def test_a_flip_in_a_segment_of_other_columns_is_detected(tmp_path: Path) -> None:
    small, ids = pa.schema([pa.field("id", pa.int64())]), pa.array([0, 1])
    old = open_partition(tmp_path / "0", small)
    new = open_partition(tmp_path / "0", pa.schema([*small, pa.field("more", pa.string())]))
    old.append(pa.record_batch([ids], schema=small))
    headers = pa.array([[("k", b"v")], None], HEADERS_FIELD.type)
    more = pa.record_batch([ids, pa.array(["x", None])], schema=new.schema)
    new.append(more.append_column(HEADERS_FIELD, headers))
    new.sync()
    expected = list(served(new))
    assert len(new.segments()) == 2
    for base in (0, 2):
        for place in some_flips(tmp_path / "0" / segment_file_name(base)):
            found: list[dict[str, Any]] = []
            with pytest.raises(CorruptSegmentError, match="flights/2"):
                found += served(new)
                pytest.fail(f"not detected: {place}")
            assert found == expected[: len(found)], place
    assert read_all(old, columns=["id"]).num_rows == 4
