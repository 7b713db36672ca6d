"""Nexmark 22, folders: the three that each bid's address has after the host."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q22") -> ms.Sink:
    """Return the job's sink."""
    parts = col("url").str.split("/")
    folders = {f"dir{number + 1}": parts.list.get(3 + number) for number in range(3)}
    bids = ms.stream("bid", time="date_time")
    return bids.select("auction", "bidder", "price", "channel", **folders).to(output)


if __name__ == "__main__":
    ms.run(build())
