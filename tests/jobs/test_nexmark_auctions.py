"""Nexmark's statistics of auctions: rows that are kept up to date, one for each auction and day."""

from __future__ import annotations

import millstream as ms
from benchmarks.nexmark.generator import BID
from tests.jobs.kit import load


def started() -> ms.testing.Harness:
    harness = ms.testing.Harness(bid=ms.testing.Topic(BID, time="date_time"))
    harness.start(load("nexmark/q17").build)
    return harness


def bid(day: int, price: int, auction: int = 7) -> dict[str, object]:
    return {"date_time": f"2026-01-{day:02} 12:00", "auction": auction, "price": price}


def test_every_bid_changes_its_auctions_row() -> None:
    harness = started()
    harness.send("bid", [bid(1, 100)])
    harness.send("bid", [bid(1, 20_000), bid(1, 2_000_000)])
    (row,) = harness.latest("q17")
    counts = [row[name] for name in ("total_bids", "rank1_bids", "rank2_bids", "rank3_bids")]
    assert counts == [3, 1, 1, 1]
    assert (row["min_price"], row["max_price"], row["sum_price"]) == (100, 2_000_000, 2_020_100)


def test_a_day_is_a_row_of_its_own() -> None:
    harness = started()
    harness.send("bid", [bid(1, 100), bid(2, 100), bid(2, 100, auction=8)])
    assert sorted(each["total_bids"] for each in harness.latest("q17")) == [1, 1, 1]


def test_rows_are_replaced_and_not_added() -> None:
    harness = started()
    for price in (1, 2, 3):
        harness.send("bid", [bid(1, price)])
    assert [each["total_bids"] for each in harness.rows("q17")] == [1, 2, 3]
    assert [each["total_bids"] for each in harness.latest("q17")] == [3]
