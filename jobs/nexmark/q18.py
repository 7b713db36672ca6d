"""Nexmark 18, last bids: each bidder's newest bid on each auction, kept up to date."""

from __future__ import annotations

import millstream as ms


def build(output: str = "q18") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time")
    last = bids.to_table(["bidder", "auction"])
    columns = ("auction", "bidder", "price", "channel", "url", "date_time", "extra")
    return last.select(*columns).to(output, mode="upsert")


if __name__ == "__main__":
    ms.run(build())
