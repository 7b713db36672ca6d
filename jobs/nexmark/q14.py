"""Nexmark 14, calculation: bids in a range of prices, by the time of day, and a letter counted."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q14") -> ms.Sink:
    """Return the job's sink."""
    price, hour = col("price") * 0.908, col("date_time").dt.hour()
    time_type = (
        ms.when(hour.between(8, 18))
        .then("dayTime")
        .when((hour <= 6) | (hour >= 20))
        .then("nightTime")
        .otherwise("otherTime")
    )
    return (
        ms.stream("bid", time="date_time")
        .filter((price > 1_000_000) & (price < 50_000_000))
        .select(
            "auction",
            "bidder",
            price=price,
            time_type=time_type,
            date_time=col("date_time"),
            extra=col("extra"),
            c_counts=col("extra").str.count_matches("c", literal=True),
        )
        .to(output)
    )


if __name__ == "__main__":
    ms.run(build())
