"""Nexmark, log to log, beside batch engines over the same Arrow data in memory.

The job reads the events from its log and writes its results into it (topics of durability `os`),
with warm kernels and checkpoints, pass after pass until ten seconds were measured. DuckDB and
Polars take turns with it: they read the same rows, mapped from the log, with as many threads as
there are cores, and write their result as an Arrow IPC file. A rate counts all events, those among
them that a query does not read. A query that copies what it reads is bound by what it writes: it
stands beside appending the same rows to a log. Results are compared with DuckDB's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import duckdb
import pyarrow as pa

import millstream as ms
from benchmarks.harness import (
    ROOT,
    Figure,
    Figures,
    as_json,
    compared,
    scratch_directory,
    table_rows,
)
from benchmarks.nexmark.data import fill, tables, without_zones
from benchmarks.nexmark.measure import (
    OUTPUT,
    Measured,
    appending,
    fingerprint,
    held,
    measure,
    one_pass,
    peers_of,
)
from benchmarks.nexmark.queries import QUERIES, Query

PEERS = ("duckdb", "polars")
EVENTS, EVENTS_QUICK = 10_000_000, 1_000_000
GOALS = {"engines": 1.0, "writing": 0.8}


def run_query(name: str, *, quick: bool, versus: tuple[str, ...], parallelism: int) -> Figures:
    """Measure one query in this process."""
    query, events = QUERIES[name], EVENTS_QUICK if quick else EVENTS
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        fill(log, events, partitions=parallelism)
        rows = tables(log)
        output = checked_output(log, name, query, rows, parallelism)
        with peers_of(query, rows, directory, versus) as peers:
            if query.bound == "writing":
                peers["appending"] = appending(output, directory)
            measured = measure(
                log, name, peers, seconds=1.0 if quick else 10.0, parallelism=parallelism
            )
    return figures_of(name, query, measured, events)


def checked_output(
    log: ms.Log, name: str, query: Query, rows: dict[str, pa.Table], parallelism: int
) -> pa.Table:
    """Return what the job writes, which is what DuckDB says.

    Raises
    ------
    AssertionError
        When it is not.
    """
    with one_pass(log, name, 1_000_000, parallelism):
        topic = log.topic(OUTPUT)
        output = without_zones(topic.latest() if topic.config.table else held(topic.to_arrow()))
    with duckdb.connect() as connection:
        for each, table in rows.items():
            connection.register(each, table)
        expected = connection.sql(query.duckdb).to_arrow_table()
    named = expected.rename_columns(output.column_names)
    got, wanted = fingerprint(output, query), fingerprint(named, query)
    assert got == wanted, f"{name}: the job gave {got[0]} rows, DuckDB {wanted[0]}, or others"
    return output


def figures_of(name: str, query: Query, measured: Measured, events: int) -> Figures:
    """Return the figures of a query: its rate beside the better peer, and what it took."""
    rate = events / measured.seconds
    peers = {each: events / seconds for each, seconds in measured.peers.items()}
    chosen = {"appending": peers["appending"]} if query.bound == "writing" else peers
    found = {name: Figure(rate, "events/s")}
    if chosen:
        best = max(chosen, key=lambda each: chosen[each])
        found[name] = compared(rate, "events/s", best, chosen[best], goal=GOALS[query.bound])
    found |= {f"{name}_{each}": Figure(value, "events/s") for each, value in peers.items()}
    return found | {
        f"{name}_processor": Figure(measured.cpu_seconds / events * 1e6, "s/M events", "lower"),
        f"{name}_memory": Figure(measured.peak_bytes, "bytes", "lower"),
        f"{name}_checkpoints": Figure(measured.checkpoints, ""),
        f"{name}_rows_through_python": Figure(measured.rows_python, "rows", "lower", goal=0),
    }


def run_alone(name: str, arguments: list[str]) -> Figures:
    """Return the figures of a query that was measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.nexmark", "--query", name, "--json", *arguments]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)["figures"]
    return {each: Figure(**fields) for each, fields in found.items()}


def main() -> None:
    """Be the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--query", default="all", help=f"all, or one of: {', '.join(QUERIES)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the events; for a look")
    parser.add_argument("--versus", default=",".join(PEERS), help="peers, of: duckdb,polars")
    parser.add_argument("--parallelism", type=int, default=1, help="partitions and workers (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.query == "all":
        arguments = ["--versus", options.versus, "--parallelism", str(options.parallelism)]
        arguments += ["--quick"] * options.quick
        figures: Figures = {}
        for name in QUERIES:
            sys.stderr.write(f"nexmark.{name} …\n")
            figures |= run_alone(name, arguments)
    else:
        versus = tuple(each for each in options.versus.split(",") if each)
        figures = run_query(
            options.query, quick=options.quick, versus=versus, parallelism=options.parallelism
        )
    if options.json:
        sys.stdout.write(as_json(figures) + "\n")
        return
    for row in table_rows(figures):
        sys.stdout.write("  ".join(text.ljust(34) for text in row).rstrip() + "\n")


if __name__ == "__main__":
    main()
