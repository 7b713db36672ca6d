"""A function with state and timers gives what a plain model says, whatever dies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk
from tests.runtime.kit import PATH, SECOND_US, TIME, compiler, put

ROWS = pa.schema({"at": TIME, "key": pa.string(), "part": pa.int16(), "value": pa.int64()})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATENESS_S, TTL_S = 8, 15
KEYS = [None, "a", "b", "c"]
Row = dict[str, Any]


class Watched(ms.ProcessFunction):
    """Uses all that there is: values and lists, timers set, cleared and set again by timers."""

    state = {"count": "int64", "values": pa.list_(pa.int64()), "share": "float32"}
    output = {"what": "str", "count": "int64", "values": pa.list_(pa.int64())}

    def on_row(self, row: Row, context: Any) -> Iterable[Row]:
        state, value = context.state, row["value"]
        if value is None:
            state.clear()
            return
        state["count"] = (state["count"] or 0) + 1
        state["share"] = (state["share"] or 0.0) + 0.1
        seen = state["values"] or []
        seen.append(value)  # in place, which must be noted, too
        state["values"] = seen
        if value % 3 == 0:
            context.set_timer(timedelta(seconds=value))
        if value % 4 == 0:
            context.clear_timer(context.time + timedelta(seconds=3))
        yield {"what": "row", "count": state["count"], "values": list(seen)}

    def on_timer(self, context: Any) -> Iterable[Row]:
        state = context.state
        yield {"what": "timer", "count": state["count"], "values": state["values"]}
        if (state["count"] or 0) > 2:
            state["count"] -= 2
            context.set_timer(timedelta(seconds=4))
            yield {"what": "again", "count": state["count"]}


class ModelContext:
    """One key, as the model keeps it, at one moment."""

    def __init__(self) -> None:
        self.state: Any = _Values()
        self.timers: set[datetime] = set()
        self.time = EPOCH
        self.least = EPOCH
        self.last: datetime | None = None
        self.waiting: list[tuple[datetime, int, Row]] = []

    def set_timer(self, when: timedelta) -> None:
        self.timers.add(max(self.time + when, self.least))

    def clear_timer(self, when: datetime) -> None:
        self.timers.discard(when)


class _Values(dict[str, Any]):
    def __missing__(self, name: str) -> None:
        return None


class Model:
    """What comes out, run after run."""

    def __init__(self) -> None:
        self.function = Watched()
        self.keys: dict[tuple[Any, ...], ModelContext] = {}
        self.greatest: dict[int, int] = {}
        self.ended = self.watermark = -(2**62)
        self.goes_on = True
        self.out: Counter[Any] = Counter()

    def run(self, rows: list[tuple[int, Row]]) -> None:
        """Take the rows of a run, with their partitions, in the order of each partition."""
        taken = []
        for partition, row in rows:
            stamp = self.greatest.get(partition, -(2**62)) - LATENESS_S
            self.greatest[partition] = max(self.greatest.get(partition, -(2**62)), row["at"])
            if row["at"] >= max(stamp, self.ended):
                context = self.keys.setdefault((row["key"], row["part"]), ModelContext())
                at = EPOCH + timedelta(seconds=row["at"])
                context.waiting.append((at, partition, {**row, "at": at}))
                taken.append(row["at"])
        self.ended = max([self.ended, *(each + 1e-6 for each in taken)])
        watermark = max(self.greatest.values()) - LATENESS_S
        self.goes_on, self.watermark = watermark > self.watermark, watermark
        for key, context in self.keys.items():
            self._end(key, context, EPOCH + timedelta(seconds=watermark))

    def _end(self, key: tuple[Any, ...], context: ModelContext, watermark: datetime) -> None:
        """Take the end of a run: the greatest watermark, rows after it, timers once more."""
        waiting = sorted(context.waiting, key=lambda each: each[:2])  # stable within a partition
        context.waiting = []
        for at, _, row in [each for each in waiting if each[0] < watermark]:
            self._timers(key, context, at)
            self._call(key, context, at, at, row)
        self._timers(key, context, watermark)
        for at, _, row in [each for each in waiting if each[0] >= watermark]:
            self._timers(key, context, at)
            self._call(key, context, at, at, row)
        for at in sorted(context.timers):
            if self.goes_on and at in context.timers:
                self._timer(key, context, at)

    def _timers(self, key: tuple[Any, ...], context: ModelContext, before: datetime) -> None:
        while context.timers and min(context.timers) < before:
            self._timer(key, context, min(context.timers))

    def _timer(self, key: tuple[Any, ...], context: ModelContext, at: datetime) -> None:
        context.timers.discard(at)
        self._call(key, context, at, at + timedelta(microseconds=1), None)

    def _call(
        self,
        key: tuple[Any, ...],
        context: ModelContext,
        at: datetime,
        least: datetime,
        row: Row | None,
    ) -> None:
        if context.last is not None and at - context.last >= timedelta(seconds=TTL_S):
            context.state.clear()
        context.time, context.least, context.last = at, least, max(at, context.last or at)
        function = self.function
        made = function.on_timer(context) if row is None else function.on_row(row, context)
        for each in made:
            self.out[(*key, at, each["what"], each.get("count"), str(each.get("values")))] += 1


def rows_of(chosen: random.Random, count: int, first_s: int, partitions: int) -> list[Any]:
    """Rows about in the order of time, some of them late, with the partition of each."""
    rows = []
    for index in range(count):
        at = first_s + index + chosen.randrange(-5, 1) - 30 * (chosen.random() < 0.1)
        value = chosen.choice([None, *range(12)])
        # Of one key and time several partitions have rows.
        row = {"at": at, "key": chosen.choice(KEYS), "part": chosen.randrange(2), "value": value}
        rows.append((chosen.randrange(partitions), row))
    return rows


def opened(disk: MemoryDisk) -> Log:
    """The log as a new process opens it."""
    return Log(PATH, storage=disk.storage("test"), clock=ManualClock())


def append(log: Log, rows: list[tuple[int, Row]]) -> None:
    for partition, row in rows:
        times = pa.array([row["at"] * SECOND_US], pa.int64()).cast(TIME)
        columns = [times, *([row[name]] for name in ROWS.names[1:])]
        table = pa.table(dict(zip(ROWS.names, columns, strict=True)), schema=ROWS)
        put(log, "rows", table, partition)


@pytest.mark.parametrize("seed", range(6))
def test_results_are_the_models_after_every_run(seed: int) -> None:
    chosen = random.Random(seed)
    disk = MemoryDisk(random.Random(seed + 1))
    partitions = chosen.choice((1, 2, 3))
    opened(disk).create_topic("rows", ROWS, partitions=partitions, time="at")
    stream = ms.stream("rows", lateness=f"{LATENESS_S}s", log=opened(disk))
    sink = stream.key_by("key", "part").process(Watched, ttl=f"{TTL_S}s").to("out")
    model = Model()
    for run in range(2):
        rows = rows_of(chosen, chosen.randrange(10, 50), 1000 + 40 * run, partitions)
        append(opened(disk), rows)
        model.run(rows)
        options = RunOptions(
            parallelism=chosen.choice((1, 2, 4)),
            until="end",
            checkpoint_interval_us=chosen.choice((300, 3_000)),
            batch_rows=chosen.choice((1, 3, 50)),
            channel_bytes=chosen.choice((1, 10_000)),
            send_rows=chosen.choice((1, 20)),
        )
        faults = Faults(count_max=3, every_events=60) if seed % 3 else Faults(count_max=0)
        run_simulated(
            compiler([sink]), disk, PATH, options,
            seed=chosen.randrange(2**32), faults=faults, clock=ManualClock(),
        )  # fmt: skip
        assert found(opened(disk)) == model.out


def found(log: Log) -> Counter[Any]:
    table = log.topic("out").to_arrow()
    rows = table.set_column(2, "at", table["at"].cast(pa.int64())).to_pylist()
    return Counter(
        (
            row["key"], row["part"], EPOCH + timedelta(microseconds=row["at"]), row["what"],
            row["count"], str(row["values"]),
        )
        for row in rows
    )  # fmt: skip
