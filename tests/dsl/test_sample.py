from __future__ import annotations

import pyarrow as pa
import pytest

import millstream as ms
from millstream.errors import PlanError
from tests.runtime.kit import Bench, event_log, events, put

ROWS = 4_000


def sampled(fraction: float, seed: int = 0) -> set[int]:
    log = event_log(Bench())
    put(log, "events", events(*range(ROWS)))
    found = ms.stream("events", log=log).sample(fraction, seed=seed).collect()
    return set(found.column("value").to_pylist())


def test_about_the_part_that_was_asked_for_is_kept_in_every_run() -> None:
    tenth, half = sampled(0.1), sampled(0.5)
    assert abs(len(tenth) - ROWS / 10) < 100
    assert abs(len(half) - ROWS / 2) < 200
    assert tenth < half
    assert sampled(0.1) == tenth
    assert len(sampled(0.1, seed=1) & tenth) < len(tenth) / 3
    assert (len(sampled(0)), len(sampled(1))) == (0, ROWS)


def test_what_is_taken_back_is_what_was_kept() -> None:
    log = event_log(Bench())
    put(log, "events", events(*range(200)))
    counts = ms.stream("events", log=log).with_columns(part=ms.col("value") % 50)
    found = counts.key_by("part").agg(ttl="never", n=ms.count()).sample(0.5).collect()
    assert set(found.column("n").to_pylist()) == {4}
    assert 10 < found.num_rows < 40
    assert found.num_rows == len(set(found.column("part").to_pylist()))


def test_a_part_is_from_0_to_1() -> None:
    log = event_log(Bench())
    with pytest.raises(PlanError, match=r"test_sample\.py:\d+: sample keeps a part.*got 2"):
        ms.stream("events", log=log).sample(2)
    log.create_topic("lists", pa.schema({"list": pa.list_(pa.int8())}))
    with pytest.raises(PlanError, match="no lists or structs; here are none"):
        ms.stream("lists", log=log).sample(0.5)
