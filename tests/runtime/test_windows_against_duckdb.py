"""Every kind of window gives what DuckDB says of the same rows, however they are cut and come."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import millstream as ms
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk
from tests.runtime.kit import PATH, TIME, compiler

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
SCHEMA = pa.schema(
    {
        "time": TIME,
        "key": pa.string(),
        "group": pa.int16(),
        "value": pa.int64(),
        "real": pa.float64(),
    }
)
RESULTS = (
    "count(*), sum(value), min(real), max(key), count(DISTINCT value), "
    "list(DISTINCT key ORDER BY key) FILTER (key IS NOT NULL), "
    "arg_max(value, real ORDER BY us, place) FILTER (real + value IS NOT NULL), "
    "first(value ORDER BY us, place) FILTER (value IS NOT NULL), "
    "list(value ORDER BY us, place) FILTER (value IS NOT NULL), "
    "list(value ORDER BY value DESC) FILTER (value IS NOT NULL)[:2], stddev_samp(value)"
)
AGGREGATES = {
    "n": ms.count(),
    "total": ms.sum("value"),
    "low": ms.min("real"),
    "high": ms.max("key"),
    "different": ms.count_distinct("value"),
    "keys": ms.collect_set("key"),
    "of_greatest": ms.arg_max("value", by="real"),
    "first": ms.first("value"),
    "all": ms.collect_list("value"),
    "top": ms.top_k("value", 2),
    "spread": ms.std("value"),
}
SPLIT = (
    "SELECT *, sum(CASE WHEN us - before < {gap} THEN 0 ELSE 1 END)"
    " OVER (PARTITION BY {keys} ORDER BY us, place) AS session FROM (SELECT *, lag(us)"
    " OVER (PARTITION BY {keys} ORDER BY us, place) AS before FROM rows)"
)


@dataclass(frozen=True)
class Kind:
    """A kind of window, and how DuckDB computes it.

    Parameters
    ----------
    make
        The window; `None`: there is none, and results are of all rows so far.
    query
        With a place for the key columns.
    unit_us
        How far apart times are that it tells apart.
    """

    make: Callable[[], Any] | None
    query: str
    unit_us: int


def _calendar(unit: str) -> str:
    start = f"epoch_us(date_trunc('{unit}', make_timestamp(us)))"
    end = f"epoch_us(date_trunc('{unit}', make_timestamp(us)) + INTERVAL 1 {unit})"
    return f"SELECT {{keys}}, {start}, {end}, {RESULTS} FROM rows GROUP BY ALL"


def _hopping(size_s: int, slide_s: int) -> str:
    size, slide = size_s * SECOND_US, slide_s * SECOND_US
    last = f"(us - ((us % {slide}) + {slide}) % {slide})"
    return (
        f"SELECT {{keys}}, start, start + {size}, {RESULTS} FROM (SELECT *, unnest(generate_series"
        f"({last}, {last} - {size}, -{slide})) AS start FROM rows) "
        f"WHERE us < start + {size} GROUP BY ALL"
    )


def _session(gap_s: int) -> str:
    gap = gap_s * SECOND_US
    split = SPLIT.replace("{gap}", str(gap))
    return (
        f"SELECT {{keys}}, min(us), max(us) + {gap}, {RESULTS} "
        f"FROM ({split}) GROUP BY {{keys}}, session"
    )


SLIDING = (
    f"SELECT own.us, own.key, own.group, own.value, own.real, {RESULTS} FROM (SELECT a AS own, b.*"
    " FROM rows AS a, rows AS b WHERE a.us - b.us BETWEEN 0 AND 6000000 AND {same})"
    " GROUP BY own, own.us, own.key, own.group, own.value, own.real"
)
COUNTING = (
    f"SELECT {{keys}}, min(us), max(us), {RESULTS} FROM (SELECT *, unnest(generate_series("
    "greatest(n - 3, 0) // 2, n // 2)) AS number FROM (SELECT *, row_number()"
    " OVER (PARTITION BY {keys} ORDER BY us, place) - 1 AS n FROM rows))"
    " GROUP BY {keys}, number HAVING count(*) = 5"
)
KINDS = {
    "running": Kind(None, f"SELECT {{keys}}, {RESULTS} FROM rows GROUP BY ALL", SECOND_US),
    "global": Kind(
        ms.global_window, f"SELECT {{keys}}, {RESULTS} FROM rows GROUP BY ALL", SECOND_US
    ),
    "tumbling": Kind(lambda: ms.tumbling("7s"), _hopping(7, 7), SECOND_US),
    "hopping": Kind(lambda: ms.hopping("10s", "4s"), _hopping(10, 4), SECOND_US),
    "sliding": Kind(lambda: ms.sliding("6s"), SLIDING, SECOND_US),
    "counting": Kind(lambda: ms.counting(5, 2), COUNTING, SECOND_US),
    "session": Kind(lambda: ms.session("5s"), _session(5), SECOND_US),
    "day": Kind(lambda: ms.tumbling("1 day"), _calendar("day"), DAY_US // 3),
    "week": Kind(lambda: ms.tumbling("1w"), _calendar("week"), DAY_US),
    "month": Kind(lambda: ms.tumbling("1 month"), _calendar("month"), 5 * DAY_US),
    "year": Kind(lambda: ms.tumbling("1 year"), _calendar("year"), 90 * DAY_US),
}

rows = st.lists(
    st.tuples(
        st.integers(-30, 60),
        st.none() | st.sampled_from(["a", "a", "a", "b", "a key that is longer"]),
        st.none() | st.integers(-2, 2),
        st.none() | st.integers(-(2**40), 2**40),
        st.none() | st.sampled_from([0.0, -1.5, 1e300]),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    rows=rows,
    keys=st.sampled_from([("key",), ("key", "group"), ("group",)]),
    parallelism=st.sampled_from([1, 2, 4]),
    partitions=st.integers(1, 4),
    dies=st.booleans(),
    emit=st.sampled_from(["final", "changes", "every"]),
    seed=st.integers(0, 10_000),
)
def test_windows_are_those_of_duckdb(
    name: str,
    rows: list[tuple[Any, ...]],
    keys: tuple[str, ...],
    parallelism: int,
    partitions: int,
    dies: bool,
    emit: Any,
    seed: int,
) -> None:
    kind, random_ = KINDS[name], random.Random(seed)
    times = [row[0] * kind.unit_us for row in rows]
    columns = list(zip(*rows, strict=True)) or [()] * 5
    table = pa.table([pa.array(times, TIME), *columns[1:]], schema=SCHEMA)
    disk = MemoryDisk(random_)
    log = Log(PATH, storage=disk.storage("test"), clock=ManualClock())
    log.create_topic("rows", SCHEMA, partitions=partitions, time="time")
    with log.producer("rows") as producer:
        begin, places, ends = 0, [], [0] * partitions
        while begin < table.num_rows:
            partition, piece = random_.randrange(partitions), table.slice(begin)
            piece = piece.slice(0, random_.randint(1, 9))
            producer.append(piece, partition=partition)
            places += [partition * 1_000 + ends[partition] + row for row in range(len(piece))]
            ends[partition] += len(piece)
            begin += len(piece)
    # Nothing is late: rows lie 90 units apart at the most.
    lateness = f"{90 * kind.unit_us // SECOND_US}s"
    keyed = ms.stream("rows", lateness=lateness, log=log).key_by(*keys)
    results: ms.Stream
    emit = "final" if name in {"sliding", "counting"} else emit
    changes = emit != "final" or kind.make is None
    if kind.make is None:
        results = keyed.agg(ttl="never", **AGGREGATES)
    else:
        if emit == "every":
            emit = ms.every(f"{9 * kind.unit_us // SECOND_US}s")
        results = keyed.window(kind.make(), emit=emit).agg(**AGGREGATES)
    options = RunOptions(
        parallelism=parallelism,
        until="end",
        checkpoint_interval_us=random_.choice((300, 3_000)),
        batch_rows=random_.choice((1, 3, 50)),
        channel_bytes=random_.choice((1, 10_000)),
        held_rows=random_.choice((0, 3, 100)),
    )
    run_simulated(
        compiler([results.to("results", mode="upsert" if changes else "append")]),
        disk,
        PATH,
        options,
        seed=seed,
        faults=Faults(count_max=2 if dies else 0, every_events=60),
        clock=ManualClock(),
    )
    table = table.append_column("place", pa.array(places, pa.int64()))
    assert found(disk) == expected(kind, table, keys)


def found(disk: MemoryDisk) -> list[tuple[Any, ...]]:
    log = Log(PATH, storage=disk.storage("test"), clock=ManualClock())
    if "results" not in log.topic_names():
        return []
    topic = log.topic("results")
    table = topic.latest() if topic.config.table else topic.to_arrow()
    columns = [
        (column.cast(pa.int64()) if column.type == TIME else column).to_pylist()
        for column in table.columns
    ]
    return sorted(map(rounded, zip(*columns, strict=True)), key=repr)


def rounded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row with as many digits of its deviation as every way of computing it agrees on."""
    return (*row[:-1], None if row[-1] is None else float(f"{row[-1]:.9e}"))


def expected(kind: Kind, table: pa.Table, keys: tuple[str, ...]) -> list[tuple[Any, ...]]:
    times = table["time"].cast(pa.int64())
    rows = table.drop_columns("time").append_column("us", times)
    quoted = ", ".join(f'"{key}"' for key in keys)
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        same = " AND ".join(f'a."{key}" IS NOT DISTINCT FROM b."{key}"' for key in keys)
        query = kind.query.replace("{keys}", quoted).replace("{same}", same)
        found = connection.sql(query).fetchall()
    return sorted(map(rounded, found), key=repr)
