"""Nexmark 19, top bids: the ten highest bids of each auction and their ranks, kept up to date."""

from __future__ import annotations

import millstream as ms


def build(output: str = "q19") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time").key_by("auction")
    columns = ("auction", "bidder", "price", "channel", "url", "date_time", "extra")
    best = bids.top(10, by="price", rank="rank_number")
    return best.select(*columns, "rank_number").to(output, mode="changelog")


if __name__ == "__main__":
    ms.run(build())
