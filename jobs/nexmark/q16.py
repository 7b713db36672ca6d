"""Nexmark 16, channel statistics: each channel's bids, bidders and auctions a day, by price."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q16") -> ms.Sink:
    """Return the job's sink."""
    price = col("price")
    rank1, rank2, rank3 = (
        price < 10_000,
        (price >= 10_000) & (price < 1_000_000),
        price >= 1_000_000,
    )
    return (
        ms.stream("bid", time="date_time")
        .key_by("channel", day=col("date_time").dt.date())
        .agg(
            minute=ms.max("date_time"),
            total_bids=ms.count(),
            rank1_bids=ms.sum(rank1.cast("int")),
            rank2_bids=ms.sum(rank2.cast("int")),
            rank3_bids=ms.sum(rank3.cast("int")),
            total_bidders=ms.count_distinct("bidder"),
            rank1_bidders=ms.count_distinct(ms.when(rank1).then(col("bidder"))),
            rank2_bidders=ms.count_distinct(ms.when(rank2).then(col("bidder"))),
            rank3_bidders=ms.count_distinct(ms.when(rank3).then(col("bidder"))),
            total_auctions=ms.count_distinct("auction"),
            rank1_auctions=ms.count_distinct(ms.when(rank1).then(col("auction"))),
            rank2_auctions=ms.count_distinct(ms.when(rank2).then(col("auction"))),
            rank3_auctions=ms.count_distinct(ms.when(rank3).then(col("auction"))),
            ttl="never",
        )
        .with_columns(minute=col("minute").dt.strftime("%H:%M"))
        .to(output, mode="upsert")
    )


if __name__ == "__main__":
    ms.run(build())
