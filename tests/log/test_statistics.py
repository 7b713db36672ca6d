"""What an index file says of a segment's columns holds for every row, and is as tight as told."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.skipping import read_statistics
from tests.log import plain_reader
from tests.log.condition_kit import NAN, SCHEMA, rows
from tests.log.log_kit import memory_log

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
INDEX_FILES = sorted(GOLDEN.rglob("*.index"))


def statistics_of(batches: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    """The statistics of a segment with these frames; it is sealed by the row of another."""
    log = memory_log()
    schema = batches[0].schema
    topic = log.create_topic("x", schema)
    with log.producer("x") as producer:
        for batch in batches:
            producer.append(batch)
    log.alter_topic("x", config={"segment.bytes": 1})
    for _ in range(2):  # who has it open goes by new settings from the next segment on
        with log.producer("x") as producer:
            producer.append(pa.RecordBatch.from_pylist([{}], schema))
    partition = topic.partition(0)
    segments = partition._segments
    segment = segments.open(0, segments.end())
    index = segments.index_of(segment, is_active=False)
    statistics = read_statistics(segments, segment, index, schema.names)
    assert statistics is not None
    found: list[dict[str, Any]] = statistics.to_pylist()
    return found


@settings(max_examples=40)
@given(st.lists(st.lists(rows(), min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_value_is_beyond_the_bounds(frames: list[list[dict[str, Any]]]) -> None:
    blocks = statistics_of([pa.RecordBatch.from_pylist(each, SCHEMA) for each in frames])
    everything = [row for frame in frames for row in frame]
    assert blocks[0]["_block"]["rows"] >= len(everything)
    assert not blocks[0]["_block"]["transactions"]
    for name in SCHEMA.names:
        known = blocks[0][name]
        values = [row[name] for row in everything if row[name] is not None]
        values = [each.encode() if isinstance(each, str) else each for each in values]
        numbers = [each for each in values if each is not NAN]
        assert known["nan"] == (len(numbers) < len(values))
        assert known["nulls"] - (blocks[0]["_block"]["rows"] - len(everything)) == len(
            everything
        ) - len(values)
        if not numbers:
            assert known["min"] is known["max"] is None
            continue
        assert known["min"] <= min(numbers)
        if name not in {"text", "raw"}:
            assert (known["min"], known["max"]) == (min(numbers), max(numbers))
        elif known["max"] is not None:
            assert known["max"] >= max(numbers)
            assert len(known["max"]) <= 32
        else:
            assert max(numbers).startswith(b"\xff" * 32)


def test_bounds_of_texts_are_cut_to_the_right_side() -> None:
    texts = pa.array(["x" * 40, "y" * 40])
    raw = pa.array([b"\xff" * 33, b"a" + b"\xff" * 40], pa.large_binary())
    (block, *_) = statistics_of([pa.record_batch({"text": texts, "raw": raw})])
    assert block["text"]["min"] == b"x" * 32
    assert block["text"]["max"] == b"y" * 31 + b"z"
    assert block["raw"]["min"] == b"a" + b"\xff" * 31
    assert block["raw"]["max"] is None


def test_a_text_that_is_not_utf8_has_bounds_too() -> None:
    text = pa.array([b"\xfe", b"a"]).view(pa.string())
    (block, *_) = statistics_of([pa.record_batch({"text": text})])
    assert (block["text"]["min"], block["text"]["max"]) == (b"a", b"\xfe")


def test_types_without_an_order_have_none() -> None:
    batch = pa.record_batch(
        {
            "list": pa.array([[1]]),
            "struct": pa.array([{"a": 1}]),
            "half": pa.array([1.0], pa.float16()),
            "took": pa.array([timedelta(seconds=1)], pa.duration("s")),
            "fixed": pa.array([b"ab"], pa.binary(2)),
        }
    )
    (block, *_) = statistics_of([batch])
    assert list(block) == ["_block", "took", "fixed"]
    assert block["took"]["max"] == timedelta(seconds=1)
    assert block["fixed"]["max"] == b"ab"


@pytest.mark.parametrize("path", INDEX_FILES, ids=lambda each: f"{each.parent.name}-{each.stem}")
def test_a_reader_made_from_the_description_reads_them(path: Path) -> None:
    index = plain_reader.read_index(path)
    frames, _ = plain_reader.read_segment(path.with_suffix(".arrows"), False)
    assert len(index.entries) == 1  # none is as long as 64 KiB
    (block,) = index.statistics
    assert block["_block"]["rows"] == sum(each.row_count for each in frames)
    assert block["_block"]["transactions"] == any(each.transaction for each in frames)
    for name, column in block.items():
        if name == "_block":
            continue
        values = [value for each in frames for value in each.batch.column(name).to_pylist()]
        assert column["nulls"] == values.count(None)
        known = [each for each in values if each is not None]
        assert column["nan"] == any(isinstance(each, float) and math.isnan(each) for each in known)
        if known and not column["nan"]:
            known = [each.encode() if isinstance(each, str) else each for each in known]
            assert (column["min"], column["max"]) == (min(known), max(known))
    assert len(INDEX_FILES) > 3
