"""Nexmark 7, highest bids: those of ten seconds that no other one is above, kept up to date."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q7") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time")
    windows = bids.key_by(window_start=col("date_time").dt.truncate("10s"))
    highest = windows.top(1, by="price", ties=True)
    columns = ("auction", "bidder", "price", "date_time", "extra")
    return highest.select(*columns).to(output, mode="changelog")


if __name__ == "__main__":
    ms.run(build())
