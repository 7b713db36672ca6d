"""Changes of windows, added up, are the results of all rows so far, at every moment."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.operator import ChangeMode
from millstream.windows.watermark import WATERMARK_MIN
from tests.operators.kit import split_at
from tests.operators.test_window_aggregate import SIZES_SLIDES, Workers, check_late
from tests.operators.window_model import (
    AGGREGATES,
    STORED,
    Row,
    WindowModel,
    batch_of,
    check_results,
    config_of,
    rows_of,
)

KEYS: list[tuple[str, ...]] = [(), ("text",), ("text", "number")]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.tuples(st.integers(0, 10**6), st.integers(0, 12))),
        st.tuples(st.just("watermark"), st.integers(-60, 120)),
        st.tuples(st.just("restart"), st.integers(1, 3)),
    ),
    max_size=10,
)


def apply(held: dict[str, Row], changes: list[Row]) -> None:
    """Take back and add rows; nothing is taken back that is not there."""
    for row in changes:
        weight = row.pop("_weight")
        if weight > 0:
            assert repr(row) not in held
            held[repr(row)] = row
        else:
            del held[repr(row)]


@pytest.mark.parametrize("kept", ["fields", "stores"])
@settings(max_examples=30)
@given(
    keys=st.sampled_from(KEYS),
    size_slide=SIZES_SLIDES,
    allowed=st.sampled_from([0, 0, 30]),
    interval=st.sampled_from([None, None, 7, 40]),
    parallelism=st.integers(1, 2),
    steps=steps,
    cuts=st.lists(st.integers(1, 11), max_size=2),
)
def test_changes_add_up_to_the_results_of_all_rows(
    kept: str,
    keys: tuple[str, ...],
    size_slide: tuple[int, int | None],
    allowed: int,
    interval: int | None,
    parallelism: int,
    steps: list[tuple[str, Any]],
    cuts: list[int],
) -> None:
    size, slide = size_slide
    aggregates = AGGREGATES if kept == "fields" else STORED
    config = config_of(keys, size, 0, allowed, slide, aggregates)
    config = replace(config, emits_changes=True, interval_us=interval)
    assert config.produces is ChangeMode.CHANGELOG
    workers, model = Workers(config, parallelism), WindowModel(config)
    closed: list[Row] = []
    held: dict[str, Row] = {}
    sources: list[Row] = []
    told_us = WATERMARK_MIN
    for action, argument in [*steps, ("watermark", 1000)]:
        late: list[Row] = []
        if action == "rows":
            seed, count = argument
            rows = rows_of(seed, count, range(-50, 100))
            sources += rows
            late = model.rows(rows)
            for piece in split_at(batch_of(rows), cuts):
                workers.batch(piece)
        elif action == "watermark":
            watermark_us = max(model.watermark_us, argument)
            closed += model.watermark(watermark_us)
            workers.watermark(watermark_us)
        else:
            workers.take_checkpoint()
            workers.restart(argument)
            workers.watermark(model.watermark_us)
            told_us = WATERMARK_MIN
        changes = workers.take(0)
        apply(held, changes)
        check_late(workers.take(1), late)
        if interval is not None:
            turn_us = model.watermark_us - model.watermark_us % interval
            if action == "rows" or turn_us <= told_us:
                assert not changes
                continue
            told_us = turn_us
        check_results(list(held.values()), [*closed, *deepcopy(model).end()], sources)
    assert sum(each.operator.counters.state_keys for each in workers.drivens) == 0
