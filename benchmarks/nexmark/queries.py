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
    compared
        SQL over `result`, for a query of which only that much must be the same: by another clock,
        or where rows are equally good.
    """

    duckdb: str
    polars: Callable[[Frames], pl.LazyFrame]
    bound: Literal["writing", "engines"] = "engines"
    compared: str = "SELECT * FROM result"


_BID = "auction, bidder, price, channel, url, date_time, extra"
_RANKS = ("price < 10000", "price >= 10000 AND price < 1000000", "price >= 1000000")
"""The price levels of the reports, in SQL; in cents."""


def _counts_by_rank(what: str) -> str:
    return ", ".join(f"count({what}) FILTER ({rank})" for rank in _RANKS)


def _polars_ranks() -> list[pl.Expr]:
    price = pl.col("price")
    return [price < 10_000, (price >= 10_000) & (price < 1_000_000), price >= 1_000_000]


def _polars_report() -> list[pl.Expr]:
    """Return the counts of the reports: of bids, of bidders, of auctions, in all and by rank."""
    found = [pl.len().alias("total_bids")]
    found += [rank.sum().alias(f"rank{n}_bids") for n, rank in enumerate(_polars_ranks(), 1)]
    for name in ("bidder", "auction"):
        column = pl.col(name)
        found.append(column.n_unique().alias(f"total_{name}s"))
        found += [
            column.filter(rank).n_unique().alias(f"rank{n}_{name}s")
            for n, rank in enumerate(_polars_ranks(), 1)
        ]
    return found


def _q0(frames: Frames) -> pl.LazyFrame:
    return frames["bid"].select("auction", "bidder", "price", "date_time", "extra")


def _q1(frames: Frames) -> pl.LazyFrame:
    euros = pl.col("price") * 0.908
    return frames["bid"].select("auction", "bidder", euros, "date_time", "extra")


def _q2(frames: Frames) -> pl.LazyFrame:
    return frames["bid"].filter(pl.col("auction") % 123 == 0).select("auction", "price")


def _q5(frames: Frames) -> pl.LazyFrame:
    bucket = pl.col("date_time").dt.truncate("2s")
    panes = frames["bid"].group_by("auction", bucket.alias("pane")).agg(pl.len().alias("bids"))
    starts = [pl.col("pane") - pl.duration(seconds=2 * back) for back in range(5)]
    windows = pl.concat([panes.with_columns(start.alias("window_start")) for start in starts])
    counts = windows.group_by("window_start", "auction").agg(pl.col("bids").sum())
    most = pl.col("bids") == pl.col("bids").max().over("window_start")
    return counts.filter(most).select("window_start", "auction", pl.col("bids").cast(pl.Int64))


def _q7(frames: Frames) -> pl.LazyFrame:
    window = pl.col("date_time").dt.truncate("10s")
    most = frames["bid"].with_columns(window.alias("window_start"))
    kept = most.filter(pl.col("price") == pl.col("price").max().over("window_start"))
    return kept.select("auction", "bidder", "price", "date_time", "extra")


def _q11(frames: Frames) -> pl.LazyFrame:
    bids = frames["bid"].select("bidder", "date_time").sort("bidder", "date_time")
    gap = pl.col("date_time").diff() >= pl.duration(seconds=10)
    begins = (gap | (pl.col("bidder") != pl.col("bidder").shift())).fill_null(True)
    sessions = bids.with_columns(begins.cum_sum().alias("session")).group_by("session")
    end = (pl.col("date_time").last() + pl.duration(seconds=10)).alias("window_end")
    return sessions.agg(
        pl.col("bidder").first(),
        pl.col("date_time").first().alias("window_start"),
        end,
        pl.len().cast(pl.Int64).alias("bids"),
    ).select("bidder", "window_start", "window_end", "bids")


def _q14(frames: Frames) -> pl.LazyFrame:
    price, hour = pl.col("price") * 0.908, pl.col("date_time").dt.hour()
    time_type = (
        pl.when((hour >= 8) & (hour <= 18))
        .then(pl.lit("dayTime"))
        .when((hour <= 6) | (hour >= 20))
        .then(pl.lit("nightTime"))
        .otherwise(pl.lit("otherTime"))
    )
    kept = frames["bid"].filter((price > 1_000_000) & (price < 50_000_000))
    count = pl.col("extra").str.count_matches("c", literal=True).cast(pl.Int64)
    return kept.select(
        *("auction", "bidder", price),
        time_type.alias("time_type"),
        *("date_time", "extra", count.alias("c_counts")),
    )


def _q15(frames: Frames) -> pl.LazyFrame:
    report = frames["bid"].group_by(pl.col("date_time").dt.date().alias("day"))
    return report.agg(_polars_report()).cast({pl.UInt32: pl.Int64})


def _q16(frames: Frames) -> pl.LazyFrame:
    report = frames["bid"].group_by("channel", pl.col("date_time").dt.date().alias("day"))
    last = pl.col("date_time").max().alias("minute")
    minute = pl.col("minute").dt.strftime("%H:%M")
    return report.agg(last, *_polars_report()).with_columns(minute).cast({pl.UInt32: pl.Int64})


def _q17(frames: Frames) -> pl.LazyFrame:
    report = frames["bid"].group_by("auction", pl.col("date_time").dt.date().alias("day"))
    price = pl.col("price")
    return report.agg(
        pl.len().alias("total_bids"),
        *(rank.sum().alias(f"rank{n}_bids") for n, rank in enumerate(_polars_ranks(), 1)),
        price.min().alias("min_price"),
        price.max().alias("max_price"),
        price.mean().alias("mean_price"),
        price.sum().alias("sum_price"),
    ).cast({pl.UInt32: pl.Int64})


def _q18(frames: Frames) -> pl.LazyFrame:
    bids = frames["bid"].sort("date_time", maintain_order=True)
    return bids.unique(["bidder", "auction"], keep="last").select(_BID.split(", "))


def _q19(frames: Frames) -> pl.LazyFrame:
    rank = pl.col("price").rank("ordinal", descending=True).over("auction")
    best = frames["bid"].with_columns(rank.cast(pl.Int64).alias("rank_number"))
    return best.filter(pl.col("rank_number") <= 10).select([*_BID.split(", "), "rank_number"])


def _q21(frames: Frames) -> pl.LazyFrame:
    named = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
    channel = pl.col("channel").str.to_lowercase()
    extracted = pl.col("url").str.extract(r"(&|^)channel_id=([^&]*)", 2)
    channel_id = channel.replace_strict(named, default=extracted, return_dtype=pl.String)
    found = frames["bid"].with_columns(channel_id.alias("channel_id"))
    kept = found.filter(pl.col("channel_id").is_not_null())
    return kept.select("auction", "bidder", "price", "channel", "channel_id")


def _q22(frames: Frames) -> pl.LazyFrame:
    parts = pl.col("url").str.split("/")
    folders = [parts.list.get(3 + n).alias(f"dir{n + 1}") for n in range(3)]
    return frames["bid"].select("auction", "bidder", "price", "channel", *folders)


QUERIES: dict[str, Query] = {
    "q0": Query("SELECT auction, bidder, price, date_time, extra FROM bid", _q0, "writing"),
    "q1": Query(
        "SELECT auction, bidder, price * 0.908::DOUBLE AS price, date_time, extra FROM bid",
        _q1,
        "writing",
    ),
    "q2": Query("SELECT auction, price FROM bid WHERE auction % 123 = 0", _q2),
    "q5": Query(
        """
        WITH panes AS (
            SELECT auction, time_bucket(INTERVAL 2 SECOND, date_time) AS pane, count(*) AS bids
            FROM bid GROUP BY ALL
        ), counts AS (
            SELECT pane - back * INTERVAL 2 SECOND AS window_start, auction,
                   sum(bids)::BIGINT AS bids
            FROM panes, range(5) AS hops(back) GROUP BY ALL
        )
        SELECT window_start, auction, bids FROM counts
        QUALIFY bids = max(bids) OVER (PARTITION BY window_start)
        """,
        _q5,
    ),
    "q7": Query(
        """
        WITH most AS (
            SELECT time_bucket(INTERVAL 10 SECOND, date_time) AS window_start, max(price) AS price
            FROM bid GROUP BY ALL
        )
        SELECT auction, bidder, bid.price, date_time, extra
        FROM bid JOIN most ON bid.price = most.price
            AND time_bucket(INTERVAL 10 SECOND, date_time) = window_start
        """,
        _q7,
    ),
    "q11": Query(
        """
        WITH marked AS (
            SELECT bidder, date_time, date_time - lag(date_time) OVER bids AS gap
            FROM bid WINDOW bids AS (PARTITION BY bidder ORDER BY date_time)
        ), numbered AS (
            SELECT bidder, date_time, count(*) FILTER (gap >= INTERVAL 10 SECOND) OVER (
                PARTITION BY bidder ORDER BY date_time ROWS UNBOUNDED PRECEDING) AS session
            FROM marked
        )
        SELECT bidder, min(date_time) AS window_start,
               max(date_time) + INTERVAL 10 SECOND AS window_end, count(*) AS bids
        FROM numbered GROUP BY bidder, session
        """,
        _q11,
    ),
    "q14": Query(
        """
        SELECT auction, bidder, price * 0.908::DOUBLE AS price,
               CASE WHEN hour(date_time) BETWEEN 8 AND 18 THEN 'dayTime'
                    WHEN hour(date_time) <= 6 OR hour(date_time) >= 20 THEN 'nightTime'
                    ELSE 'otherTime' END AS time_type,
               date_time, extra,
               length(extra) - length(replace(extra, 'c', '')) AS c_counts
        FROM bid
        WHERE price * 0.908::DOUBLE > 1000000 AND price * 0.908::DOUBLE < 50000000
        """,
        _q14,
    ),
    "q15": Query(
        f"""
        SELECT date_time::DATE AS day, count(*), {_counts_by_rank("*")},
               count(DISTINCT bidder), {_counts_by_rank("DISTINCT bidder")},
               count(DISTINCT auction), {_counts_by_rank("DISTINCT auction")}
        FROM bid GROUP BY day
        """,
        _q15,
    ),
    "q16": Query(
        f"""
        SELECT channel, date_time::DATE AS day, strftime(max(date_time), '%H:%M') AS minute,
               count(*), {_counts_by_rank("*")},
               count(DISTINCT bidder), {_counts_by_rank("DISTINCT bidder")},
               count(DISTINCT auction), {_counts_by_rank("DISTINCT auction")}
        FROM bid GROUP BY channel, day
        """,
        _q16,
    ),
    "q17": Query(
        f"""
        SELECT auction, date_time::DATE AS day, count(*), {_counts_by_rank("*")},
               min(price), max(price), avg(price), sum(price)::BIGINT
        FROM bid GROUP BY auction, day
        """,
        _q17,
    ),
    "q18": Query(
        f"SELECT {_BID} FROM bid QUALIFY row_number() OVER ("
        "PARTITION BY bidder, auction ORDER BY date_time DESC) <= 1",
        _q18,
        compared="SELECT bidder, auction, date_time FROM result",
    ),
    "q19": Query(
        f"SELECT {_BID}, row_number() OVER (PARTITION BY auction ORDER BY price DESC) "
        "AS rank_number FROM bid QUALIFY rank_number <= 10",
        _q19,
        compared="SELECT auction, price, rank_number FROM result",
    ),
    "q21": Query(
        """
        WITH found AS (
            SELECT auction, bidder, price, channel,
                   CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1'
                        WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
                        ELSE nullif(regexp_extract(url, '(&|^)channel_id=([^&]*)', 2), '')
                   END AS channel_id
            FROM bid
        )
        SELECT * FROM found WHERE channel_id IS NOT NULL
        """,
        _q21,
    ),
    "q22": Query(
        """
        SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1,
               split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
        FROM bid
        """,
        _q22,
    ),
}
