"""One query's job from log to log, its peers in turn with it, and its result checked."""

from __future__ import annotations

import gc
import importlib.util
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa

import millstream as ms
from benchmarks.harness import ROOT, seconds_of
from benchmarks.nexmark.data import without_zones
from benchmarks.nexmark.queries import Query
from millstream.dsl.run_context import RunOverrides, override_run

OUTPUT = "nexmark_output"
CORES = 2
PASSES_MIN = 5
CHECKPOINTS_MIN = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """What the passes of a query measured, medians.

    Parameters
    ----------
    seconds, cpu_seconds
        Of the job, a pass over all events.
    peak_bytes
        The most memory that the process held in a pass, mapped pages of the log among it.
    rows_python
        Rows that went through Python objects.
    checkpoints
        Completed in the pass with the fewest.
    peers
        Seconds of each peer.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    rows_python: int
    checkpoints: int
    peers: Mapping[str, float]


def build_job(name: str, output: str) -> ms.Sink:
    """Return the sink of the script `jobs/nexmark/<name>.py`."""
    path = ROOT / "jobs" / "nexmark" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"nexmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sink: ms.Sink = module.build(output)
    return sink


def measure(
    log: ms.Log,
    name: str,
    peers: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    parallelism: int,
) -> Measured:
    """Run the job over all events until `seconds` were measured, and peers after every pass.

    The first two passes do not count: they compile, and tell how often to take checkpoints.
    """
    interval_us = 1_000_000
    found: list[tuple[float, float, int, int, int]] = []
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    while sum(each[0] for each in found[2:]) < seconds or len(found) < PASSES_MIN + 2:
        with one_pass(log, name, interval_us, parallelism) as (elapsed, cpu, peak, result):
            rows_python = sum(each.rows_python for each in result.counters.values())
            found.append((elapsed, cpu, peak, rows_python, result.checkpoints))
            for peer, work in peers.items():
                times[peer].append(seconds_of(work, repeats=1))
        if len(found) == 2:
            interval_us = min(max(int(elapsed * 1e6 / (2 * CHECKPOINTS_MIN)), 10_000), 1_000_000)
    counted = found[2:]
    return Measured(
        statistics.median(each[0] for each in counted),
        statistics.median(each[1] for each in counted),
        max(each[2] for each in counted),
        counted[-1][3],
        min(each[4] for each in counted),
        {peer: statistics.median(each[2:]) for peer, each in times.items()},
    )


@contextmanager
def one_pass(
    log: ms.Log, name: str, interval_us: int, parallelism: int
) -> Iterator[tuple[float, float, int, ms.RunResult]]:
    """Run the job once; give seconds, seconds of processors, peak memory and the run's result."""
    overrides = RunOverrides(log=log, checkpoint_interval_us=interval_us)
    gc.collect()
    with override_run(overrides):
        sink = build_job(name, OUTPUT)
        log.create_topic(
            OUTPUT,
            sink.node.schema,
            partitions=parallelism,
            key=sink.node.key_columns,
            time=sink.node.event_time,
            table=sink.node.upsert,
            durability="os",
        )
        _reset_peak()
        cpu, start = _cpu_seconds(), time.perf_counter()
        result = ms.run(sink, name="nexmark", parallelism=parallelism, until="end", fresh=True)
        elapsed = time.perf_counter() - start
        cpu = _cpu_seconds() - cpu
    try:
        yield elapsed, cpu, _peak_bytes(), result
    finally:
        log.delete_topic(OUTPUT)


@contextmanager
def peers_of(
    query: Query, tables: Mapping[str, pa.Table], directory: Path, names: tuple[str, ...]
) -> Iterator[dict[str, Callable[[], object]]]:
    """Give what runs the query in each engine of `names` and writes its result as Arrow IPC."""
    with ExitStack() as stack:
        work: dict[str, Callable[[], object]] = {}
        if "duckdb" in names:
            connection = stack.enter_context(duckdb.connect(config={"threads": CORES}))
            for name, table in tables.items():
                connection.register(name, table)
            work["duckdb"] = lambda: write(
                connection.sql(query.duckdb).to_arrow_table(), directory / "duckdb.arrow"
            )
        if "polars" in names:
            frames = frames_of(tables)
            work["polars"] = lambda: (
                query.polars(frames).collect().write_ipc(directory / "polars.arrow")
            )
        yield work


def frames_of(tables: Mapping[str, pa.Table]) -> dict[str, pl.LazyFrame]:
    """Return Polars' lazy frames over the tables' memory."""
    return {name: pl.DataFrame(table).lazy() for name, table in tables.items()}


def write(table: pa.Table, path: Path) -> None:
    """Write a result as an Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def appending(rows: pa.Table, directory: Path) -> Callable[[], object]:
    """Return what appends `rows` to a topic of durability `os`: the bound of copying."""
    other = ms.Log(directory / "bound")

    def work() -> None:
        if "bound" in other.topic_names():
            other.delete_topic("bound")
        other.create_topic("bound", rows.schema, durability="os")
        with other.producer("bound") as producer:
            for batch in rows.to_batches(max_chunksize=131_072):
                producer.append(batch)

    return work


def held(rows: pa.Table) -> pa.Table:
    """Return what a changelog holds in the end; rows that are no changes as they are."""
    if "weight" not in rows.column_names:
        return rows
    with duckdb.connect() as connection:
        connection.register("changes", without_zones(rows))
        net = "SELECT * EXCLUDE weight, sum(weight)::BIGINT AS held FROM changes GROUP BY ALL"
        sql = f"SELECT * EXCLUDE (held, copy) FROM ({net}), range(held) AS copies(copy)"
        return connection.sql(sql).to_arrow_table()


def fingerprint(rows: pa.Table, query: Query) -> tuple[int, int]:
    """Return how many rows there are and a sum over the hashes of all of them, in any order."""
    with duckdb.connect() as connection:
        connection.register("result", rows)
        connection.execute(f"CREATE VIEW compared AS {query.compared}")
        columns = ", ".join(f'"{each}"' for each in connection.table("compared").columns)
        sql = f"SELECT count(*), sum(hash({columns})::HUGEINT) FROM compared"
        count, total = connection.sql(sql).fetchall()[0]
    return int(count), int(total or 0)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
