"""The golden files: read by today's code and by plain Arrow readers, written byte for byte."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.log.partition_kit import open_partition

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FOLDER = GOLDEN / "partition-1"
NAMES = ["plain", "nested"]
OF_ONE_BOOT = {"control", "append.lock", "sync.lock"}


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_golden = load_script()


def expected(name: str) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return frames


def segments(name: str) -> list[Path]:
    return sorted((FOLDER / name).glob("*.arrows"))


@pytest.mark.parametrize("name", NAMES)
def test_todays_code_writes_the_golden_bytes(name: str, tmp_path: Path) -> None:
    make_golden.write_partition(tmp_path, name, **make_golden.PARTITIONS[name])
    written = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    golden = {path.name: path.read_bytes() for path in (FOLDER / name).iterdir()}
    assert {key: each for key, each in written.items() if key not in OF_ONE_BOOT} == golden


@pytest.mark.parametrize("name", NAMES)
def test_todays_code_reads_the_golden_files(name: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / name, tmp_path / name)
    schema = make_golden.PLAIN if name == "plain" else make_golden.NESTED
    partition = open_partition(tmp_path / name, schema)
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


def test_polars_reads_a_segment_as_a_stream() -> None:
    # Its own reader, in Rust; Polars has no map and no fixed-size binary type.
    path = segments("plain")[0]
    frame = pl.read_ipc_stream(path, use_pyarrow=False)
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    assert frame["key"].to_list() == table["key"].to_pylist()
    assert frame["value"].to_list() == table["value"].to_pylist()
    assert frame["time"].to_list() == table["time"].to_pylist()


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_bodies_start_at_multiples_of_64(name: str) -> None:
    for frame in expected(name):
        assert frame["position"] % 64 == 0
        assert frame["header_position"] % 64 == 0
        assert frame["frame_size"] % 64 == 0
