"""What the state of a job may take of memory, as `run`, `submit` and the command line say it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from millstream.dsl.memory import Memory, checked_memory
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.errors import OptionError, SpillError
from millstream.storage_local.scratch import LocalScratch


def test_the_budget_from_outside_comes_before_the_scripts_own() -> None:
    none = RunOverrides()
    assert checked_memory(None, None, none, "job.py:1") == Memory()
    assert checked_memory("512MiB", "/a", none, "job.py:1") == Memory(512 * 2**20, "/a")
    assert checked_memory(2_000_000, None, none, "job.py:1") == Memory(2_000_000)
    outside = RunOverrides(memory_budget_bytes=2**21, spill_directory="/b")
    assert checked_memory("512MiB", "/a", outside, "job.py:1") == Memory(2**21, "/b")


@pytest.mark.parametrize("budget", ["", "5", "much", "-1GiB", "1023KiB", 0, True, 2.5])
def test_what_is_no_budget_is_refused(budget: str) -> None:
    with pytest.raises(OptionError, match=r"job.py:1: memory_budget is a number of bytes"):
        checked_memory(budget, None, RunOverrides(), "job.py:1")


def test_a_folder_without_a_budget_is_refused() -> None:
    with pytest.raises(OptionError, match="give memory_budget, too"):
        checked_memory(None, "/a", RunOverrides(), "job.py:1")


@pytest.fixture
def many(tmp_path: Path) -> ms.Log:
    """With a topic of many keys, each twice."""
    log = ms.Log(tmp_path / "log")
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(60_000), 2))
    schema = pa.schema([("key", pa.int64()), ("name", pa.string())])
    log.create_topic("many", schema)
    with log.producer("many") as producer:
        names = pa.array([f"a name that is long {each}" for each in numbers])
        producer.append(pa.table([pa.array(numbers), names], schema=schema))
    return log


def test_state_beyond_the_budget_goes_to_disk(many: ms.Log, tmp_path: Path) -> None:
    keyed = ms.stream("many", log=many).key_by("key", "name")
    sink = keyed.agg(rows=ms.count(), ttl="never").to("counts", mode="upsert")
    scratch = tmp_path / "scratch"
    overrides = RunOverrides(batch_rows=20_000, memory_budget_bytes=2**20)
    with override_run(overrides):
        result = ms.run(sink, name="many", until="end", spill_directory=scratch)
    state = [each for each in result.counters.values() if each.state_keys]
    assert [each.state_keys for each in state] == [60_000]
    assert state[0].state_bytes < 2**20
    assert state[0].state_disk_bytes > 2**20
    latest = many.topic("counts").latest()
    assert latest.num_rows == 60_000
    assert set(latest["rows"].to_pylist()) == {2}
    assert os.listdir(scratch) == []


def test_a_folder_that_cannot_be_used_ends_the_job(many: ms.Log, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = ms.stream("many", log=many).key_by("key").agg(rows=ms.count(), ttl="never")
    with pytest.raises(SpillError, match="name another folder with spill_directory="):
        ms.run(
            sink.to("counts", mode="upsert"),
            until="end",
            memory_budget="1MiB",
            spill_directory=tmp_path / "file",
        )


def test_a_full_disk_ends_the_job_and_says_what_to_do(
    many: ms.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(scratch: LocalScratch, name: str) -> pa.NativeFile:
        raise OSError(28, "No space left on device", f"{scratch.path}/{name}")

    monkeypatch.setattr(LocalScratch, "create", full)
    sink = ms.stream("many", log=many).key_by("name").agg(rows=ms.count(), ttl="never")
    with pytest.raises(SpillError, match=r"budget of 1,048,576 bytes.*No space.*make room"):
        ms.run(sink.to("counts", mode="upsert"), until="end", memory_budget="1MiB")
