"""Nexmark 17, auction statistics: each auction's bids and prices a day, kept up to date."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q17") -> ms.Sink:
    """Return the job's sink."""
    price = col("price")
    ranks = (price < 10_000, (price >= 10_000) & (price < 1_000_000), price >= 1_000_000)
    counts = {
        f"rank{number}_bids": ms.sum(rank.cast("int")) for number, rank in enumerate(ranks, start=1)
    }
    return (
        ms.stream("bid", time="date_time")
        .key_by("auction", day=col("date_time").dt.date())
        .agg(
            total_bids=ms.count(),
            **counts,
            min_price=ms.min("price"),
            max_price=ms.max("price"),
            mean_price=ms.mean("price"),
            sum_price=ms.sum("price"),
        )
        .to(output, mode="upsert")
    )


if __name__ == "__main__":
    ms.run(build())
