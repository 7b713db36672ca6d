"""Nexmark 1, currency conversion: every bid with its price in euros instead of dollars."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q1") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time")
    euros = bids.with_columns(price=col("price") * 0.908)
    return euros.select("auction", "bidder", "price", "date_time", "extra").to(output)


if __name__ == "__main__":
    ms.run(build())
