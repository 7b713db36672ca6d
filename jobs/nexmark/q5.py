"""Nexmark 5, hot items: the auctions with the most bids in ten seconds, every two seconds."""

from __future__ import annotations

import millstream as ms


def build(output: str = "q5") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time").key_by("auction")
    counts = bids.window(ms.hopping("10s", "2s")).agg(bids=ms.count())
    hottest = counts.key_by("window_start").top(1, by="bids", ties=True)
    return hottest.select("window_start", "auction", "bids").to(output, mode="changelog")


if __name__ == "__main__":
    ms.run(build())
