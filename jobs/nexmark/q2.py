"""Nexmark 2, selection: the bids on one auction in 123."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q2") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time")
    return bids.filter(col("auction") % 123 == 0).select("auction", "price").to(output)


if __name__ == "__main__":
    ms.run(build())
