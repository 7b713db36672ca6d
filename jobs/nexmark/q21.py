"""Nexmark 21, channel ids: each bid's, known by the channel's name or found in its address."""

from __future__ import annotations

import millstream as ms
from millstream import col


def build(output: str = "q21") -> ms.Sink:
    """Return the job's sink."""
    channel = col("channel").str.to_lowercase()
    channel_id = (
        ms.when(channel == "apple")
        .then("0")
        .when(channel == "google")
        .then("1")
        .when(channel == "facebook")
        .then("2")
        .when(channel == "baidu")
        .then("3")
        .otherwise(col("url").str.extract(r"(&|^)channel_id=([^&]*)", 2))
    )
    bids = ms.stream("bid", time="date_time").with_columns(channel_id=channel_id)
    found = bids.filter(col("channel_id").is_not_null())
    return found.select("auction", "bidder", "price", "channel", "channel_id").to(output)


if __name__ == "__main__":
    ms.run(build())
