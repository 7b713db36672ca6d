"""An operator that spills gives what it would give with all of its state in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pytest

from millstream.operators.aggregate import Aggregate
from millstream.operators.dedup import DedupConfig
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.latest_rows import LatestRowsConfig
from millstream.operators.memory_budget import MemoryBudget
from millstream.operators.operator import (
    OPERATION_COLUMN,
    STAMP_COLUMN,
    OperatorConfig,
    StateSnapshot,
)
from millstream.operators.scratch_tables import ScratchTables
from millstream.operators.spilling import Spilling
from millstream.operators.table_join import TableJoinConfig
from millstream.operators.top import TopConfig
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.storage_memory.scratch import MemoryScratch
from millstream.windows.hopping import Hopping
from millstream.windows.session import Session
from millstream.windows.tumbling import Tumbling
from tests.operators.change_kit import Held
from tests.operators.kit import ALL_GROUPS, TIME, Driven, stored

SCHEMA = pa.schema([("time", TIME), ("key", pa.string()), ("value", pa.int64())])
KEYS = ("key",)
FIXED = (Aggregate("rows", "count", None), Aggregate("most", "max", "value"))
STORED = (
    *FIXED,
    Aggregate("seen", "count_distinct", "value"),
    Aggregate("newest", "last", "value"),
)


def windowed(window: object, aggregates: tuple[Aggregate, ...], **given: object) -> OperatorConfig:
    return WindowAggregateConfig(SCHEMA, KEYS, "time", window, aggregates, **given)  # type: ignore[arg-type]


CONFIGS: dict[str, Callable[[], OperatorConfig]] = {
    "group": lambda: GroupAggregateConfig(SCHEMA, KEYS, FIXED),
    "expiring group": lambda: GroupAggregateConfig(
        SCHEMA, KEYS, FIXED, time_column="time", ttl_us=40
    ),
    "stored group": lambda: GroupAggregateConfig(SCHEMA, KEYS, STORED, time_column="time"),
    "tumbling": lambda: windowed(Tumbling(10), STORED),
    "hopping": lambda: windowed(Hopping(30, 10), FIXED, allowed_lateness_us=5),
    "session": lambda: windowed(Session(7), STORED),
    "changes": lambda: windowed(Tumbling(10), FIXED, emits_changes=True),
    "intervals": lambda: windowed(Tumbling(10), FIXED, emits_changes=True, interval_us=8),
    "dedup": lambda: DedupConfig(SCHEMA, KEYS, "time", 25),
    "top": lambda: TopConfig(SCHEMA, KEYS, ("value", "time"), 2),
    "latest": lambda: LatestRowsConfig(SCHEMA, KEYS),
}


def rows_at(chosen: random.Random, time: int, watermark: int) -> pa.RecordBatch:
    """Some rows around a time, stamped with the watermark before them."""
    count = chosen.randrange(1, 30)
    times = [time * 1000 + chosen.randrange(-20_000, 1_000) for _ in range(count)]
    columns = [
        pa.array([each // 1000 for each in times], pa.int64()).cast(TIME),
        pa.array([chosen.choice((None, "", *map(str, range(60)))) for _ in range(count)]),
        pa.array([chosen.choice((None, 1, 2, 3)) for _ in range(count)], pa.int64()),
        pa.array([watermark] * count, pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, names=[*SCHEMA.names, STAMP_COLUMN])


class Pair:
    """An operator within a budget of nothing, and the same one without a budget."""

    def __init__(self, config: OperatorConfig, limit_bytes: int) -> None:
        self.config, self.limit_bytes = config, limit_bytes
        self.keys = getattr(config, "spill_keys", (KEYS,))
        self.plain = Driven(config.build())
        self.scratch = MemoryScratch()
        self.spilling = Driven(self.spill())
        self.snapshots: list[StateSnapshot] = []

    def spill(self) -> Spilling:
        tables = ScratchTables(self.scratch, self.limit_bytes)
        return Spilling(self.config, self.keys, ALL_GROUPS, MemoryBudget(self.limit_bytes), tables)

    def take(self, act: Callable[[Driven], object]) -> None:
        act(self.plain)
        act(self.spilling)

    def catch_up(self) -> None:
        operator = self.spilling.operator
        assert isinstance(operator, Spilling)
        if operator.holds_back:
            self.spilling.take(operator.catch_up())
        assert not operator.holds_back

    def checkpoint(self, number: int, since: int | None) -> None:
        """Keep what the job would: a full snapshot, then changes."""
        self.catch_up()
        snapshot = self.spilling.operator.snapshot(since, number)
        assert snapshot is not None
        assert snapshot.full == (since is None)
        kept = [
            stored(replace(snapshot, full=since is None and not index, rows=rows, further=()))
            for index, rows in enumerate((snapshot.rows, *snapshot.further))
        ]
        self.snapshots = kept if since is None else [*self.snapshots, *kept]

    def restart(self, watermark: int) -> None:
        """Let a new process go on from the checkpoint."""
        self.scratch = MemoryScratch()
        self.spilling.operator = self.spill()
        self.spilling.operator.restore(self.snapshots, ALL_GROUPS)
        self.spilling.watermark(watermark)

    def check(self) -> None:
        for port in {*self.plain.batches, *self.spilling.batches}:
            found, expected = Held(), Held()
            found.apply(self.spilling.batches.get(port, []))
            expected.apply(self.plain.batches.get(port, []))
            assert found.sorted() == expected.sorted(), port


@pytest.mark.parametrize("limit_bytes", [1, 400_000])
@pytest.mark.parametrize("name", CONFIGS)
def test_results_are_those_of_state_in_memory(name: str, limit_bytes: int) -> None:
    chosen = random.Random(f"{name} {limit_bytes}")
    pair = Pair(CONFIGS[name](), limit_bytes)
    watermark, since = 0, None
    for step in range(12):
        rows = rows_at(chosen, 30 + 8 * step, watermark)
        pair.take(partial(Driven.batch, batch=rows))
        if chosen.random() < 0.7:
            watermark = 8 * step
            pair.take(partial(Driven.watermark, watermark_us=watermark))
        match chosen.randrange(4):
            case 0:
                pair.catch_up()
            case 1 | 2:
                pair.checkpoint(step, since)
                since = step
                if chosen.random() < 0.5:
                    pair.restart(watermark)
                    since = None
    pair.catch_up()
    keys, expected = (each.operator.counters.state_keys for each in (pair.spilling, pair.plain))
    # What repeats nothing any more is forgotten when its part of the keys is looked at again.
    assert keys >= expected if name == "dedup" else keys == expected
    if limit_bytes == 1:
        counters = pair.spilling.operator.counters
        assert counters.state_bytes == 0
        assert counters.state_disk_bytes > 0
    pair.take(Driven.end)
    pair.check()


@pytest.mark.parametrize("how", ["inner", "left"])
def test_a_table_larger_than_memory_is_joined(how: Literal["inner", "left"]) -> None:
    chosen = random.Random(how)
    table = pa.schema([("name", pa.string()), ("number", pa.int64())])
    pair = Pair(TableJoinConfig(SCHEMA, table, KEYS, ("name",), ("name",), how), 1)
    since = None
    for step in range(10):
        names = pa.array([chosen.choice((None, "", *map(str, range(60)))) for _ in range(20)])
        columns = [names, pa.array([step] * 20), pa.array(chosen.choices((0, 1), k=20), pa.int8())]
        changes = pa.RecordBatch.from_arrays(columns, names=[*table.names, OPERATION_COLUMN])
        pair.take(partial(Driven.batch, batch=changes, input_index=1))
        pair.take(partial(Driven.batch, batch=rows_at(chosen, 30, 0)))
        if chosen.random() < 0.5:
            pair.catch_up()
        else:
            pair.checkpoint(step, since)
            since = step
            if chosen.random() < 0.5:
                pair.restart(0)
                since = None
    assert pair.spilling.operator.counters.state_bytes == 0
    pair.check()
