"""Nexmark's sessions: what belongs to one, whichever way its bids come, and over a restart."""

from __future__ import annotations

import millstream as ms
from benchmarks.nexmark.generator import BID
from tests.jobs.kit import load


def started(parallelism: int = 1) -> ms.testing.Harness:
    harness = ms.testing.Harness(bid=ms.testing.Topic(BID, time="date_time"))
    harness.start(load("nexmark/q11").build, parallelism=parallelism)
    return harness


def bid(second: int, bidder: int = 1) -> dict[str, object]:
    return {"date_time": f"2026-01-01 00:00:{second:02}", "bidder": bidder}


def test_a_pause_of_ten_seconds_ends_a_session() -> None:
    harness = started()
    harness.send("bid", [bid(0), bid(9), bid(19), bid(28)])
    harness.end()
    assert [each["bids"] for each in harness.rows("q11")] == [2, 2]


def test_a_bid_that_is_older_than_the_newest_is_late() -> None:
    harness = started()
    harness.send("bid", [bid(20), bid(19), bid(20)])
    harness.end()
    assert harness.late_rows == 1
    assert [each["bids"] for each in harness.rows("q11")] == [2]


def test_sessions_go_on_after_a_restart_for_more_workers() -> None:
    harness = started()
    harness.send("bid", [bid(0, bidder) for bidder in range(30)])
    harness.restart(parallelism=2)
    harness.send("bid", [bid(5, bidder) for bidder in range(30)])
    harness.end()
    found = {each["bidder"]: each["bids"] for each in harness.rows("q11")}
    assert found == dict.fromkeys(range(30), 2)
