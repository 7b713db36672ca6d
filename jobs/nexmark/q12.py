"""Nexmark 12, processing time: how many bids of each bidder were read in each ten seconds."""

from __future__ import annotations

import millstream as ms


def build(output: str = "q12") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time=ms.processing_time()).key_by("bidder")
    return bids.window(ms.tumbling("10s")).agg(bids=ms.count()).to(output)


if __name__ == "__main__":
    ms.run(build())
