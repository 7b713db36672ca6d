"""Nexmark 11, user sessions: how many bids each bidder made without a pause of ten seconds."""

from __future__ import annotations

import millstream as ms


def build(output: str = "q11") -> ms.Sink:
    """Return the job's sink."""
    sessions = ms.stream("bid", time="date_time").key_by("bidder").window(ms.session("10s"))
    return sessions.agg(bids=ms.count()).to(output)


if __name__ == "__main__":
    ms.run(build())
