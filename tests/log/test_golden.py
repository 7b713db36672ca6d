"""The golden files: read by today's code and by plain readers, written byte for byte."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import xxhash

from millstream.clock import ManualClock
from millstream.log import Log
from tests.log import plain_reader
from tests.log.partition_kit import open_partition

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FOLDER = GOLDEN / "partition-1"
OF_ONE_BOOT = {
    "bells",
    "control",
    "epochs",
    "append.lock",
    "sync.lock",
    "topics.lock",
    "clean.lock",
    "decide.lock",
}
LOG_FOLDER = GOLDEN / "log-1"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_golden = load_script()
NAMES = list(make_golden.SCHEMAS)


def expected(name: str) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return frames


def segments(name: str) -> list[Path]:
    return sorted((FOLDER / name).glob("*.arrows"))


@pytest.mark.parametrize("name", NAMES)
def test_todays_code_writes_the_golden_bytes(name: str, tmp_path: Path) -> None:
    make_golden.write_partition(tmp_path, name)
    written = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    golden = {path.name: path.read_bytes() for path in (FOLDER / name).iterdir()}
    assert {key: each for key, each in written.items() if key not in OF_ONE_BOOT} == golden


@pytest.mark.parametrize("name", NAMES)
def test_todays_code_reads_the_golden_files(name: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / name, tmp_path / name)
    partition = open_partition(tmp_path / name, make_golden.SCHEMAS[name], name=name)
    described = json.loads(json.dumps(make_golden.describe(partition), default=str))
    assert described == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_pyarrow_reads_a_segment_as_a_stream(name: str) -> None:
    tables = [pa.ipc.open_stream(path.read_bytes()).read_all() for path in segments(name)]
    found = [row for table in tables for row in table.to_pylist()]
    frames = expected(name)
    assert json.loads(json.dumps(found, default=str)) == [
        row for frame in frames for row in frame["rows"]
    ]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"nested"}))
def test_polars_reads_a_segment_as_a_stream(name: str) -> None:
    # Its own reader, in Rust; Polars has no map and no fixed-size binary type.
    for path in segments(name):
        frame = pl.read_ipc_stream(path, use_pyarrow=False)
        assert frame.to_dicts() == pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_bodies_start_at_multiples_of_64(name: str) -> None:
    for frame in expected(name):
        assert frame["position"] % 64 == 0
        assert frame["header_position"] % 64 == 0
        assert frame["frame_size"] % 64 == 0


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in OF_ONE_BOOT
    }


class TestTheCompactedLog:
    """A log whose segments were compacted, or removed."""

    folder = GOLDEN / "compacted-1"

    def test_todays_code_writes_the_golden_bytes(self, tmp_path: Path) -> None:
        make_golden.write_compacted(tmp_path)
        assert files_of(tmp_path) == files_of(self.folder)

    def test_a_reader_made_from_the_description_reads_what_ours_does(self, tmp_path: Path) -> None:
        shutil.copytree(self.folder, tmp_path / "log")
        log = Log(tmp_path / "log")
        topics = plain_reader.read_topics(self.folder)
        for name, plain in topics.items():
            reader = log.topic(name).reader(0)
            rows = []
            while (batch := reader.read_table(rows_max=1)) is not None:
                (row,) = batch.to_pylist()
                rows.append((row, reader.position))
            committed = plain.committed(0)
            assert [row for row, _ in rows] == [row for _, row in committed]
            for (_, position), (offset, _) in zip(rows, committed, strict=True):
                assert position > offset
            assert log.topic(name).stable_ends() == [plain.stable_end(0)]
        assert topics["orders"].frames(0)[0].base_offset > 0
        flags = [frame.flags for frame in topics["stock"].frames(0)]
        assert {0, 2} <= set(flags)
        latest = log.topic("stock").latest().to_pylist()
        assert latest == topics["stock"].latest()


class TestTheRepartitionedLog:
    """A log with topics that had other partition counts before."""

    folder = GOLDEN / "repartitioned-1"

    def test_todays_code_writes_the_golden_bytes(self, tmp_path: Path) -> None:
        make_golden.write_repartitioned(tmp_path)
        assert files_of(tmp_path) == files_of(self.folder)

    def test_a_reader_made_from_the_description_reads_what_ours_does(self, tmp_path: Path) -> None:
        shutil.copytree(self.folder, tmp_path / "log")
        log = Log(tmp_path / "log")
        topics = plain_reader.read_topics(self.folder)
        orders = topics["orders"]
        assert [each["generation"] for each in orders.config["older"]] == [0, 1]
        plain = [
            row for generation, index in orders.places()
            for _, row in orders.committed(index, generation)
        ]  # fmt: skip
        assert plain == log.topic("orders").to_arrow().to_pylist()
        assert [row["n"] for row in plain[-3:]] == [22, 23, 24]
        assert len(plain) == 16
        latest = log.topic("stock").latest().to_pylist()
        assert latest == topics["stock"].latest()
        assert {row["item"]: row["count"] for row in latest} == {"nut": 10, "axle": 3}


class TestTheShortenedLog:
    """A log whose control topic begins with a snapshot."""

    folder = GOLDEN / "shortened-1"

    def test_todays_code_writes_the_golden_bytes(self, tmp_path: Path) -> None:
        make_golden.write_shortened(tmp_path)
        assert files_of(tmp_path) == files_of(self.folder)

    def test_a_reader_made_from_the_description_reads_what_ours_does(self, tmp_path: Path) -> None:
        frames = plain_reader.read_partition(self.folder / "control")
        assert frames[0].base_offset > 0
        assert b'"type":"snapshot"' in frames[0].batch.column("record")[0].as_py()
        assert len(frames) > 1
        shutil.copytree(self.folder, tmp_path / "log")
        log = Log(tmp_path / "log")
        plain = plain_reader.read_topics(self.folder)["orders"]
        assert log.topic("orders").stable_ends() == [plain.stable_end(0)]
        found = [row for _, row in plain.committed(0)]
        assert found == log.topic("orders").to_arrow().to_pylist()
        scripts = [number for number in range(1, 12) if number % 4 != 3]
        jobs = [100 + number for number in range(1, 12) if number != 5]
        assert sorted(row["n"] for row in found) == [*scripts, *jobs]
        control = plain_reader.read_control(self.folder)
        assert control.manifests == {1: {"n": 11}}
        assert log.transactions.newest_manifest("job") == b'{"n": 11}'
        assert [each.writer.owner for each in log.transactions.prepared()] == ["waiting"]


class TestTheLog:
    """A log with a stream, a table, and transactions of every fate."""

    @staticmethod
    def expected() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = json.loads(
            (GOLDEN / "log-1.json").read_text("utf-8")
        )
        return found

    def test_todays_code_writes_the_golden_bytes(self, tmp_path: Path) -> None:
        make_golden.write_log(tmp_path)
        assert files_of(tmp_path) == files_of(LOG_FOLDER)

    def test_a_reader_made_from_the_description_reads_it(self) -> None:
        topics = plain_reader.read_topics(LOG_FOLDER)
        found = {
            name: [
                {"stable_end": topic.stable_end(index), "rows": topic.committed(index)}
                for index in range(topic.config["partitions"])
            ]
            for name, topic in topics.items()
        }
        assert json.loads(json.dumps(found, default=str)) == self.expected()
        control = plain_reader.read_control(LOG_FOLDER)
        assert control.owners == {1: "billing", 2: "shop", 3: "job late"}
        assert control.manifests == {3: {"checkpoint": 4}}

    def test_a_reader_made_from_the_description_finds_each_named_append_once(self) -> None:
        topic = plain_reader.read_topics(LOG_FOLDER)["orders"]
        named = [each for index in range(2) for each in topic.frames(index) if each.flags & 4]
        assert {(each.owner_id, each.epoch, each.sequence >> 16) for each in named} == {
            (2, 1, 1),
            (2, 2, 5),
        }
        rows = [row["n"] for each in named for _, row in each.rows()]
        assert sorted(rows) == list(range(35, 42))
        files = list((LOG_FOLDER / "topics" / topic.config["id"]).rglob("*.producers"))
        said = [plain_reader.read_producers(path) for path in files]
        assert {2} in [set(each) for each in said]

    def test_todays_code_reads_it(self, tmp_path: Path) -> None:
        shutil.copytree(LOG_FOLDER, tmp_path / "log")
        # At that time: by now what is open there would be aborted.
        clock = ManualClock(make_golden.START_US)
        log = Log(tmp_path / "log", clock=clock)
        assert log.topic_names() == sorted(self.expected())
        for name, partitions in self.expected().items():
            topic = log.topic(name)
            assert topic.stable_ends() == [each["stable_end"] for each in partitions]
            for index, each in enumerate(partitions):
                reader = topic.reader(index)
                rows = []
                while (batch := reader.read_table(rows_max=1)) is not None:
                    rows.append([reader.position - 1, batch.to_pylist()[0]])
                assert json.loads(json.dumps(rows, default=str)) == each["rows"]
        latest = log.topic("stock").latest().to_pylist()
        assert latest == plain_reader.read_topics(LOG_FOLDER)["stock"].latest()
        assert log.transactions.newest_manifest("job late") == b'{"checkpoint":4}'
        assert [each.number for each in log.transactions.prepared()] == [6]
        undecided = log.topic("stock").reader(0, offset=8, isolation="read_uncommitted").read()
        assert undecided is not None
        assert undecided["count"].to_pylist() == [2, 3]

    def test_keys_lie_where_the_description_says(self) -> None:
        topic = plain_reader.read_topics(LOG_FOLDER)["orders"]
        for index in range(2):
            for _, row in topic.committed(index):
                key = b"" if row["customer"] is None else row["customer"].encode()
                group = xxhash.xxh64_intdigest(key) % 4096
                assert group * 2 // 4096 == index

    def test_a_plain_arrow_reader_sees_all_rows(self) -> None:
        topic = plain_reader.read_topics(LOG_FOLDER)["orders"]
        for index in range(2):
            folder = LOG_FOLDER / "topics" / topic.config["id"] / "0" / str(index)
            tables = [
                pa.ipc.open_stream(path.read_bytes()).read_all()
                for path in sorted(folder.glob("*.arrows"))
            ]
            frames = [frame.batch for frame in topic.frames(index)]
            assert pa.concat_tables(tables).equals(pa.Table.from_batches(frames))

    def test_the_reader_made_from_the_description_knows_nothing_of_our_code(self) -> None:
        source = Path(plain_reader.__file__).read_text("utf-8")
        imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
        assert imported == {"__future__", "base64", "json", "struct", "dataclasses", "pathlib",
                            "typing", "pyarrow"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_reader_made_from_the_description_reads_partitions(name: str) -> None:
    frames = plain_reader.read_partition(FOLDER / name)
    rows = [row for frame in frames for row in frame.batch.to_pylist()]
    assert json.loads(json.dumps(rows, default=str)) == [
        row for frame in expected(name) for row in frame["rows"]
    ]
    for frame, golden in zip(frames, expected(name), strict=True):
        for each in ("base_offset", "max_timestamp_us", "owner_id", "transaction", "flags"):
            assert getattr(frame, each) == golden[each]
