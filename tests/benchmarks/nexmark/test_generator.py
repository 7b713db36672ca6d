"""The generator against what the public one promises: proportions, ids, hot keys, sizes, a seed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.nexmark.generator import AUCTION, BID, EPOCHS_A_CHUNK, PERSON, Chunk, Generator

EVENTS = 200_000


@pytest.fixture(scope="module")
def chunk() -> Chunk:
    return next(Generator(seed=3).chunks(EVENTS))


def test_of_fifty_events_one_is_a_person_and_three_are_auctions(chunk: Chunk) -> None:
    rows = chunk.person.num_rows, chunk.auction.num_rows, chunk.bid.num_rows
    assert rows == (EVENTS // 50, EVENTS // 50 * 3, EVENTS // 50 * 46)


def test_every_column_is_whole(chunk: Chunk) -> None:
    for batch, schema in ((chunk.person, PERSON), (chunk.auction, AUCTION), (chunk.bid, BID)):
        batch.validate(full=True)
        assert batch.schema.equals(schema)
        assert all(column.null_count == 0 for column in batch.columns)


def test_a_seed_gives_the_same_events_and_another_others() -> None:
    events = EPOCHS_A_CHUNK * 50 + 5_000
    first, again = (list(Generator(seed=1).chunks(events)) for _ in range(2))
    assert [each.bid for each in first] == [each.bid for each in again]
    assert first[0].bid["price"] != first[1].bid["price"].slice(0, 5)
    assert first[0].bid != next(Generator(seed=2).chunks(events)).bid


def test_ids_go_on_from_chunk_to_chunk() -> None:
    chunks = list(Generator().chunks(EPOCHS_A_CHUNK * 50 * 2))
    for name in ("person", "auction"):
        ids = np.concatenate([getattr(each, name)["id"].to_numpy() for each in chunks])
        assert (np.diff(ids) == 1).all()
        assert ids[0] == 1_000


def test_time_goes_on_by_the_rate_and_never_back(chunk: Chunk) -> None:
    times_us = chunk.bid["date_time"].cast(pa.int64()).to_numpy()
    assert (np.diff(times_us) >= 0).all()
    assert times_us[-1] - times_us[0] == pytest.approx(EVENTS / 10_000 * 1e6, rel=0.001)


def test_half_of_the_bids_are_for_the_hot_auction_and_a_quarter_not_by_the_hot_bidder(
    chunk: Chunk,
) -> None:
    auctions, bidders = (chunk.bid[name].to_numpy() for name in ("auction", "bidder"))
    assert np.mean(auctions % 100 == 0) == pytest.approx(0.505, abs=0.01)
    assert np.mean(bidders % 100 == 1) == pytest.approx(0.7525, abs=0.01)
    sellers = chunk.auction["seller"].to_numpy()
    assert np.mean(sellers % 100 == 0) == pytest.approx(0.7525, abs=0.02)


def test_half_of_the_bids_come_by_a_hot_channel_and_most_others_name_theirs(chunk: Chunk) -> None:
    hot = pc.is_in(chunk.bid["channel"], pa.array(["Google", "Facebook", "Baidu", "Apple"]))
    assert pc.mean(hot).as_py() == pytest.approx(0.5, abs=0.01)
    others = chunk.bid["url"].filter(pc.invert(hot))
    named = pc.match_substring_regex(others, r"&channel_id=\d+$")
    assert pc.mean(named).as_py() == pytest.approx(0.9, abs=0.02)


def test_prices_are_as_many_of_each_magnitude(chunk: Chunk) -> None:
    magnitudes = np.floor(np.log10(chunk.bid["price"].to_numpy()))
    shares = np.bincount(magnitudes.astype(np.int64), minlength=8)[2:8] / chunk.bid.num_rows
    assert shares == pytest.approx([1 / 6] * 6, abs=0.01)


def test_events_have_their_average_sizes(chunk: Chunk) -> None:
    extra = pc.mean(pc.binary_length(chunk.bid["extra"])).as_py()
    assert 32 + extra == pytest.approx(100, abs=1)


def test_auctions_end_after_they_began(chunk: Chunk) -> None:
    lasts = pc.subtract(chunk.auction["expires"], chunk.auction["date_time"]).cast(pa.int64())
    assert pc.min(lasts).as_py() > 0
    assert pc.mean(lasts).as_py() == pytest.approx(166_000, rel=0.05)
