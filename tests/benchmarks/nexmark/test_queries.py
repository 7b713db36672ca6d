"""Every query's job gives what DuckDB and Polars give, at any parallelism."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import millstream as ms
from benchmarks.nexmark.__main__ import checked_output
from benchmarks.nexmark.data import fill, tables
from benchmarks.nexmark.measure import fingerprint, frames_of
from benchmarks.nexmark.queries import QUERIES, Query

EVENTS = 30_000


@pytest.fixture(scope="module", params=[1, 2], ids="P={}".format)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ms.Log, int]]:
    directory: Path = tmp_path_factory.mktemp("nexmark")
    log = ms.Log(directory / "log")
    fill(log, EVENTS, seed=7, partitions=request.param)
    yield log, request.param


@pytest.mark.parametrize("name", QUERIES)
def test_a_job_gives_what_duckdb_gives(filled: tuple[ms.Log, int], name: str) -> None:
    log, parallelism = filled
    rows = checked_output(log, name, QUERIES[name], tables(log), parallelism)
    assert rows.num_rows


@pytest.mark.parametrize("name", QUERIES)
def test_polars_computes_the_same_as_duckdb(filled: tuple[ms.Log, int], name: str) -> None:
    log, _ = filled
    rows, query = tables(log), QUERIES[name]
    with duckdb.connect() as connection:
        for each, table in rows.items():
            connection.register(each, table)
        expected = connection.sql(query.duckdb).to_arrow_table()
    got = query.polars(frames_of(rows)).collect().to_arrow()
    got = got.rename_columns(expected.column_names).cast(expected.schema)
    assert fingerprint(got, query) == fingerprint(expected, query)


def test_a_wrong_result_is_told_from_a_right_one(filled: tuple[ms.Log, int]) -> None:
    log, parallelism = filled
    other = Query(
        "SELECT auction, price + 1 FROM bid WHERE auction % 123 = 0", QUERIES["q2"].polars
    )
    with pytest.raises(AssertionError, match="q2: the job gave"):
        checked_output(log, "q2", other, tables(log), parallelism)
