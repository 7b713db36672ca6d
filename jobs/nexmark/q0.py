"""Nexmark 0, pass through: every bid as it is. What reading and writing cost alone."""

from __future__ import annotations

import millstream as ms


def build(output: str = "q0") -> ms.Sink:
    """Return the job's sink."""
    bids = ms.stream("bid", time="date_time")
    return bids.select("auction", "bidder", "price", "date_time", "extra").to(output)


if __name__ == "__main__":
    ms.run(build())
