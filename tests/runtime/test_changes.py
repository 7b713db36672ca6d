"""What follows changes is DuckDB's answer at every moment of quiet, whatever dies."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import millstream as ms
from millstream import col
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk
from tests.runtime.kit import PATH, TIME, compiler

EVENTS = pa.schema({"time": TIME, "key": pa.string(), "part": pa.int32(), "value": pa.int64()})
NAMES = pa.schema({"key": pa.string(), "name": pa.string(), "number": pa.int64()})
SHORT = pa.schema({"key": pa.string(), "number": pa.int64()})
LIMIT = 9
KEYS = ["a", "b", "c", "a longer key"]

LATEST = """select * from events qualify 1 = row_number() over
            (partition by key, part order by time desc)"""
TABLES = {
    "counts": """select key, count(*) n, sum(value)::bigint total, avg(value) mean,
                 min(value) least, max(value) greatest from events group by key""",
    "of_counts": """select n, count(*) keys, sum(total)::bigint total, max(greatest) most
                    from counts where n > 1 group by n""",
    "per_name": """select name, count(number) known, min(number) least from names
                   where number is null or number < 3 group by name""",
    "small": "select key, name from names where number < 3",
    "reduced": """select key, time, value from events where value is not null
                  qualify 1 = row_number() over (partition by key order by value desc, time)""",
    "of_names": """select name, count(distinct number) numbers, count(distinct key) about,
                   round(var_samp(number), 6) spread, min(key) least, max(key) greatest,
                   arg_max(number, key) of_greatest, sum(number * number)::bigint squares,
                   list_sort(list(distinct number) filter (number is not null)) every,
                   list(key order by key desc)[:2] top from names group by name""",
    "in_order": f"""select key, arg_min(value, time) one, arg_max(value, time) other,
                    list(value order by time) filter (value is not null) every
                    from ({LATEST}) group by key""",
    "of_united": """select key, count(distinct number) numbers, stddev_samp(number)::float spread
                    from (select key, total number from counts union all
                          select key, number from names) group by key""",
    "most": """select name, row_number() over
               (partition by name order by number desc nulls last, key) place, number
               from names qualify place <= 2""",
    "latest": f"select time, key, value from ({LATEST})",
}
BAGS = {
    "all_events": "select count(*) n, sum(value)::bigint total from events having count(*) > 0",
    "united": "select key from counts where total > 3 union all select key from names",
    "name_changes": "select * from names",
    "best": """select key, value, time, row_number() over
               (partition by key order by value desc nulls last, time desc) place
               from events qualify place <= 2""",
    "newest": """select time from (select time from events qualify 1 = row_number() over
                 (partition by key, part order by time desc)) order by time desc limit 2""",
    "firsts": "select distinct key, value from events",
    "doubled": "select key, 2 * number as twice from names where number is not null",
    "peeked": "select key, number from names",
}


SQUARES = ms.aggregate(
    "number",
    init=int,
    update=lambda total, number: total + number * number,
    merge=int.__add__,
    finish=int,
    state=pa.int64(),
    returns=pa.int64(),
)


def sinks(log: Log) -> list[ms.Sink]:
    """The job as a user writes it: each output is one of `TABLES` or `BAGS`."""
    events, names = ms.stream("events", log=log), ms.table("names", log=log)
    counts = events.key_by("key").agg(
        ttl="never",
        n=ms.count(),
        total=ms.sum("value"),
        mean=ms.mean("value"),
        least=ms.min("value"),
        greatest=ms.max("value"),
    )
    of_counts = (
        counts.filter(col("n") > 1)
        .key_by("n")
        .agg(keys=ms.count(), total=ms.sum("total"), most=ms.max("greatest"))
    )
    few = names.filter(col("number").is_null() | (col("number") < 3))
    per_name = few.key_by("name").agg(known=ms.count("number"), least=ms.min("number"))
    of_names = names.key_by("name").agg(
        numbers=ms.count_distinct("number"),
        about=ms.approx_count_distinct("key"),
        spread=ms.var("number"),
        least=ms.min("key"),
        greatest=ms.max("key"),
        of_greatest=ms.arg_max("number", by="key"),
        squares=SQUARES,
        every=ms.collect_set("number"),
        top=ms.top_k("key", 2),
    )
    latest = events.to_table(["key", "part"]).map("time", "key", "value", "part")
    in_order = latest.key_by("key").agg(
        one=ms.first("value"), other=ms.last("value"), every=ms.collect_list("value")
    )
    both = counts.select("key", number=col("total")).union(names.filter().map("key", "number"))
    of_united = both.key_by("key").agg(numbers=ms.count_distinct("number"), spread=ms.std("number"))
    united = counts.filter(col("total") > 3).select("key").union(names.filter().map("key"))
    best = events.key_by("key").top(2, by=["value", "time"], rank="place")
    behind = [(col("key") < each).cast("int") for each in KEYS]
    most = names.key_by("name").top(2, by=["number", *behind], rank="place")
    valued = events.filter(col("value").is_not_null())
    newest = events.to_table(["key", "part"]).top(2, by=col("time").cast("int") * 2)
    return [
        counts.to("counts", mode="upsert"),
        of_counts.to("of_counts", mode="upsert"),
        per_name.to("per_name", mode="upsert"),
        names.filter(col("number") < 3).drop("number").to("small", mode="upsert"),
        latest.to("latest", mode="upsert"),
        of_names.with_columns(spread=col("spread").round(6)).to("of_names", mode="upsert"),
        in_order.to("in_order", mode="upsert"),
        of_united.with_columns(spread=col("spread").cast("float32")).to("of_united", mode="upsert"),
        events.agg(n=ms.count(), total=ms.sum("value")).to("all_events", mode="changelog"),
        united.to("united", mode="changelog"),
        names.to_stream().to("name_changes"),
        names.map_batches(doubled, {"key": "string", "twice": "int"}).to(
            "doubled", mode="changelog"
        ),
        names.peek(lambda rows: rows.validate(full=True))
        .map_batches(lambda rows: rows.select(["number", "key"]), same_rows=True, schema=SHORT)
        .to("peeked", mode="changelog"),
        valued.key_by("key").reduce(better).to("reduced", mode="upsert"),
        events.limit(LIMIT).to("limited"),
        best.map("key", "value", "time", "place").to("best", mode="changelog"),
        most.select("name", "place", "number").to("most", mode="upsert"),
        newest.select("time").to_stream().to("newest"),
        events.dedup("key", "value", within="ever")
        .select("key", "value")
        .to("firsts", mode="changelog"),
    ]


def doubled(rows: pa.RecordBatch) -> dict[str, Any]:
    rows = rows.filter(rows["number"].is_valid())
    return {"key": rows["key"], "twice": [2 * each.as_py() for each in rows["number"]]}


def better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The row of the greater value; of equal ones the earlier."""
    earlier, later = sorted((one, other), key=lambda row: row["time"])
    return later if later["value"] > earlier["value"] else earlier


class Case:
    """A disk, the job on it, and the same rows in DuckDB."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = MemoryDisk(self.random)
        self.events: list[dict[str, Any]] = []
        self.names: dict[str, dict[str, Any]] = {}
        log = self.log()
        log.create_topic("events", EVENTS, partitions=self.random.choice((1, 2, 4)), time="time")
        partitions = self.random.choice((1, 2, 4))
        log.create_topic("names", NAMES, key=("key",), table=True, partitions=partitions)

    def log(self) -> Log:
        """The log as a new process opens it."""
        return Log(PATH, storage=self.disk.storage("test"), clock=ManualClock())

    def write(self, count: int) -> None:
        """Append rows, and change the table, in frames of some size."""
        chosen, log = self.random, self.log()
        for _ in range(count):
            # Times are no two alike, and not in order.
            time = chosen.randrange(10**6) * 1000 + len(self.events)
            key = chosen.choice([None, *KEYS, "a", "a"])
            row = {"key": key, "part": chosen.randrange(2)}
            row["value"] = chosen.choice((None, -2, 1, 3, 5))
            self.events.append({"time": time, **row})
        new = self.events[len(self.events) - count :]
        while new:
            size = chosen.randrange(1, 8)
            with log.producer("events") as producer:
                producer.append(events_of(new[:size]))
            new = new[size:]
        with log.producer("names") as names:
            for _ in range(count):
                key = chosen.choice(KEYS)
                if chosen.random() < 0.3:
                    self.names.pop(key, None)
                    names.delete(pa.table({"key": [key]}))
                    continue
                name, number = chosen.choice((None, "A", "B")), chosen.choice((None, 1, 2, 4))
                self.names[key] = {"key": key, "name": name, "number": number}
                names.append(pa.Table.from_pylist([self.names[key]], NAMES))

    def run(self, faults: Faults) -> None:
        """Run the job to its end, at some parallelism, in batches of some size."""
        options = RunOptions(
            parallelism=self.random.choice((1, 2, 4)),
            until="end",
            checkpoint_interval_us=self.random.choice((300, 3_000)),
            batch_rows=self.random.choice((1, 3, 50)),
            channel_bytes=self.random.choice((1, 10_000)),
            send_rows=self.random.choice((1, 20)),
            held_rows=self.random.choice((0, 3, 100)),
            memory_budget_bytes=self.random.choice((None, None, 1)),
        )
        seed = self.random.randrange(2**32)
        run_simulated(
            compiler(sinks(self.log())),
            self.disk,
            PATH,
            options,
            seed=seed,
            faults=faults,
            clock=ManualClock(),
        )

    def check(self) -> None:
        """Every output is what DuckDB says."""
        log = self.log()
        DUCKDB.register("events", events_of(self.events))
        DUCKDB.register("names", pa.Table.from_pylist(list(self.names.values()), NAMES))
        for name, query in TABLES.items():
            found = log.topic(name).latest()
            columns = [each for each in found.schema.names if each != "part"]
            assert bag(found.select(columns)) == bag(answer(query)), name
        for name, query in BAGS.items():
            assert held(log.topic(name).to_arrow()) == bag(answer(query)), name
        limited = bag(log.topic("limited").to_arrow())
        assert limited.total() == min(LIMIT, len(self.events))
        assert limited <= bag(events_of(self.events))


DUCKDB = duckdb.connect(config={"threads": 1})


def answer(query: str) -> pa.Table:
    counts = TABLES["counts"]
    return DUCKDB.sql(f"with counts as ({counts}) {query}").to_arrow_table()


def events_of(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {name: [each[name] for each in rows] for name in EVENTS.names}
    times = pa.array(columns.pop("time"), pa.int64()).cast(TIME)
    return pa.table({"time": times, **columns}, schema=EVENTS)


def bag(table: pa.Table) -> Counter[Any]:
    return Counter(zip(*columns_of(table), strict=True))


def columns_of(table: pa.Table) -> list[list[Any]]:
    """The columns as lists, times as microseconds, lists as tuples."""
    numbers = (
        each.cast(pa.int64()) if pa.types.is_timestamp(each.type) else each
        for each in table.columns
    )
    return [
        [tuple(value) if isinstance(value, list) else value for value in each.to_pylist()]
        for each in numbers
    ]


def held(changes: pa.Table) -> Counter[Any]:
    """The rows that hold after changes, which say in the last column what they are."""
    counts: Counter[Any] = Counter()
    for *row, change in zip(*columns_of(changes), strict=True):
        weight = {"+I": 1, "+U": 1, "-U": -1, "-D": -1}.get(change, change)
        counts[tuple(row)] += weight
    assert min(counts.values(), default=0) >= 0
    return +counts


# A failing example is shown as it was found: a seed does not shrink.
@settings(
    max_examples=8,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    seed=st.integers(0, 10_000),
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=3),
    faults=st.sampled_from([Faults(count_max=0), Faults(count_max=3, every_events=60)]),
)
def test_outputs_are_duckdbs_answers_after_every_run(
    seed: int, counts: list[int], faults: Faults
) -> None:
    case = Case(seed)
    for count in counts:
        case.write(count)
        case.run(faults)
        case.check()
