"""The queries as DuckDB and Polars run them over Arrow tables in memory.

Each is what the job of its name in `jobs/nexmark/` computes, in the form that serves the engine
best; columns come in the job's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

Frames = Mapping[str, pl.LazyFrame]
bid = pl.col


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Parameters
    ----------
    duckdb
        Its SQL over `person`, `auction` and `bid`.
    polars
        The same over lazy frames of these names.
    bound
        `"writing"`: it writes about what it reads, and is measured against appending the same
        rows; `"engines"`: against the better of the engines.
    key
        Columns whose latest row counts, where the job updates its results.
    """

    duckdb: str
    polars: Callable[[Frames], pl.LazyFrame]
    bound: Literal["writing", "engines"] = "engines"
    key: tuple[str, ...] = ()


def _q0(frames: Frames) -> pl.LazyFrame:
    return frames["bid"].select("auction", "bidder", "price", "date_time", "extra")


def _q1(frames: Frames) -> pl.LazyFrame:
    euros = pl.col("price") * 0.908
    return frames["bid"].select("auction", "bidder", euros, "date_time", "extra")


def _q2(frames: Frames) -> pl.LazyFrame:
    return frames["bid"].filter(pl.col("auction") % 123 == 0).select("auction", "price")


QUERIES: dict[str, Query] = {
    "q0": Query("SELECT auction, bidder, price, date_time, extra FROM bid", _q0, "writing"),
    "q1": Query(
        "SELECT auction, bidder, price * 0.908::DOUBLE AS price, date_time, extra FROM bid",
        _q1,
        "writing",
    ),
    "q2": Query("SELECT auction, price FROM bid WHERE auction % 123 = 0", _q2),
}
