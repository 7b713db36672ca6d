"""Nexmark 17, auction statistics: each auction's bids and prices a day, kept up to date."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q17") -> ms.Sink:
    """Return the job's sink."""
    price = col("price")
    rank1, rank2 = price < 10_000, (price >= 10_000) & (price < 1_000_000)
    return (
        ms.stream("bid", time="date_time")
        .key_by("auction", day=col("date_time").dt.date())
        .agg(
            total_bids=ms.count(),
            rank1_bids=ms.sum(rank1.cast("int")),
            rank2_bids=ms.sum(rank2.cast("int")),
            rank3_bids=ms.sum((price >= 1_000_000).cast("int")),
            min_price=ms.min("price"),
            max_price=ms.max("price"),
            mean_price=ms.mean("price"),
            sum_price=ms.sum("price"),
            ttl="never",
        )
        .to(output, mode="upsert")
    )


if __name__ == "__main__":
    ms.run(build())
