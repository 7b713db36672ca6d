"""The events of Nexmark, in columns: of every fifty, one person, three auctions, 46 bids.

    event number  0 │ 1 2 3 │ 4 … 49 │ 50 │ 51 52 53 │ …
                  P │ A A A │ B …  B │ P  │ A  A  A  │ …

An event's time and what ids exist by then follow from its number; the rest is drawn from a random
generator that is seeded anew for each `EPOCHS_A_CHUNK` of fifty events, so that a chunk is the
same whoever makes it and in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int64Array = npt.NDArray[np.int64]

PERSONS, AUCTIONS, BIDS = 1, 3, 46
EVENTS_AN_EPOCH = PERSONS + AUCTIONS + BIDS
EPOCHS_A_CHUNK = 4_000

FIRST_ID = 1_000
FIRST_CATEGORY, CATEGORIES = 10, 5
BASE_TIME_MS = 1_436_918_400_000
"""2015-07-15, 00:00 UTC, as in the original."""

_HOT_BATCH = 100
_HOT_AUCTION_RATIO, _HOT_SELLER_RATIO, _HOT_BIDDER_RATIO = 2, 4, 4
_AUCTIONS_IN_FLIGHT, _ACTIVE_PEOPLE, _LEAD = 100, 1_000, 10
_BYTES = {"person": 200, "auction": 500, "bid": 100}
_STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
_CITIES = (
    *("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland"),
    *("Bend", "Redmond", "Seattle", "Kent", "Cheyenne"),
)
_FIRST_NAMES = (
    *("Peter", "Paul", "Luke", "John", "Saul", "Vicky"),
    *("Kate", "Julie", "Sarah", "Deiter", "Walter"),
)
_LAST_NAMES = (
    *("Shultz", "Abrams", "Spencer", "White", "Bartels"),
    *("Walton", "Smith", "Jones", "Noris"),
)
_HOT_CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
_CHANNELS = 10_000

_TIME = pa.timestamp("us", "UTC")
PERSON = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("email_address", pa.string()),
        ("credit_card", pa.string()),
        ("city", pa.string()),
        ("state", pa.string()),
        ("date_time", _TIME),
        ("extra", pa.string()),
    ]
)
AUCTION = pa.schema(
    [
        ("id", pa.int64()),
        ("item_name", pa.string()),
        ("description", pa.string()),
        ("initial_bid", pa.int64()),
        ("reserve", pa.int64()),
        ("date_time", _TIME),
        ("expires", _TIME),
        ("seller", pa.int64()),
        ("category", pa.int64()),
        ("extra", pa.string()),
    ]
)
BID = pa.schema(
    [
        ("auction", pa.int64()),
        ("bidder", pa.int64()),
        ("price", pa.int64()),
        ("channel", pa.string()),
        ("url", pa.string()),
        ("date_time", _TIME),
        ("extra", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive events: what there is of each kind, in the order of their times."""

    person: pa.RecordBatch
    auction: pa.RecordBatch
    bid: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Generator:
    """A seeded generator of events.

    Parameters
    ----------
    seed
        Two generators of one seed give the same events.
    events_per_second
        Of event time. (The public generator's rate is what its source is asked for; 10,000 makes
        ten million events a thousand seconds long.)

    Examples
    --------
    >>> chunk = next(Generator(seed=1).chunks(50 * 10))
    >>> chunk.person.num_rows, chunk.auction.num_rows, chunk.bid.num_rows
    (10, 30, 460)
    """

    seed: int = 0
    events_per_second: int = 10_000

    def chunks(self, events: int) -> Iterator[Chunk]:
        """Give the first `events` events, which are rounded up to whole epochs of fifty."""
        epochs = -(-events // EVENTS_AN_EPOCH)
        for first in range(0, epochs, EPOCHS_A_CHUNK):
            yield self._chunk(first, min(first + EPOCHS_A_CHUNK, epochs))

    def _chunk(self, first: int, end: int) -> Chunk:
        random = np.random.default_rng([self.seed, first // EPOCHS_A_CHUNK])
        epochs = np.arange(first, end, dtype=np.int64)
        draws = [
            each(random, _numbers(epochs, offset, count))
            for each, offset, count in (
                (self._persons, 0, PERSONS),
                (self._auctions, PERSONS, AUCTIONS),
                (self._bids, PERSONS + AUCTIONS, BIDS),
            )
        ]
        return Chunk(*draws)

    def _times_ms(self, numbers: Int64Array) -> Int64Array:
        return BASE_TIME_MS + numbers * 1_000 // self.events_per_second

    def _persons(self, random: np.random.Generator, numbers: Int64Array) -> pa.RecordBatch:
        count = len(numbers)
        name = _joined(
            " ", _chosen(random, _FIRST_NAMES, count), _chosen(random, _LAST_NAMES, count)
        )
        address = _joined("@", _words(random, count, 7), _words(random, count, 5))
        email = _joined("", address, pa.array([".com"] * count))
        card = _cards(random, count)
        city, state = _chosen(random, _CITIES, count), _chosen(random, _STATES, count)
        sizes = 8 + _lengths(_joined("", name, email, card, city, state))
        columns = [
            pa.array(_last_person(numbers) + FIRST_ID),
            *(name, email, card, city, state),
            _times(self._times_ms(numbers)),
            _extra(random, sizes, _BYTES["person"]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=PERSON)

    def _auctions(self, random: np.random.Generator, numbers: Int64Array) -> pa.RecordBatch:
        count = len(numbers)
        times_ms = self._times_ms(numbers)
        hot = random.integers(_HOT_SELLER_RATIO, size=count) > 0
        hot_seller = _last_person(numbers) // _HOT_BATCH * _HOT_BATCH
        seller = np.where(hot, hot_seller, _active_person(random, numbers))
        category = FIRST_CATEGORY + random.integers(CATEGORIES, size=count)
        initial = _prices(random, count)
        ahead = _AUCTIONS_IN_FLIGHT * EVENTS_AN_EPOCH // AUCTIONS
        horizon_ms = self._times_ms(numbers + ahead) - times_ms
        expires_ms = times_ms + 1 + random.integers(np.maximum(2 * horizon_ms, 1))
        name, description = _words(random, count, 20), _words(random, count, 100)
        sizes = 48 + _lengths(name) + _lengths(description)
        columns = [
            pa.array(_last_auction(numbers) + FIRST_ID),
            name,
            description,
            pa.array(initial),
            pa.array(initial + _prices(random, count)),
            _times(times_ms),
            _times(expires_ms),
            pa.array(seller + FIRST_ID),
            pa.array(category),
            _extra(random, sizes, _BYTES["auction"]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=AUCTION)

    def _bids(self, random: np.random.Generator, numbers: Int64Array) -> pa.RecordBatch:
        count = len(numbers)
        last = _last_auction(numbers)
        least = np.maximum(last - _AUCTIONS_IN_FLIGHT, 0)
        in_flight = least + random.integers(last - least + 1 + _LEAD)
        hot = random.integers(_HOT_AUCTION_RATIO, size=count) > 0
        auction = np.where(hot, last // _HOT_BATCH * _HOT_BATCH, in_flight)
        hot = random.integers(_HOT_BIDDER_RATIO, size=count) > 0
        # The second of a hundred, so that hot bidders and hot sellers are not the same.
        hot_bidder = _last_person(numbers) // _HOT_BATCH * _HOT_BATCH + 1
        bidder = np.where(hot, hot_bidder, _active_person(random, numbers))
        price = _prices(random, count)
        hot = random.integers(2, size=count) > 0
        channel = np.where(
            hot,
            random.integers(len(_HOT_CHANNELS), size=count),
            len(_HOT_CHANNELS) + random.integers(_CHANNELS, size=count),
        )
        channels, urls = _channels(self.seed)
        columns = [
            pa.array(auction + FIRST_ID),
            pa.array(bidder + FIRST_ID),
            pa.array(price),
            channels.take(pa.array(channel)),
            urls.take(pa.array(channel)),
            _times(self._times_ms(numbers)),
            _extra(random, np.full(count, 32, np.int64), _BYTES["bid"]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=BID)


def _numbers(epochs: Int64Array, offset: int, count: int) -> Int64Array:
    """Return the numbers of those events of `epochs` that are of one kind."""
    return (epochs[:, None] * EVENTS_AN_EPOCH + offset + np.arange(count)).ravel()


def _times(times_ms: Int64Array) -> pa.Array:
    return pa.array(times_ms * 1_000).cast(_TIME)


def _last_person(numbers: Int64Array) -> Int64Array:
    """Return the newest person, from 0, by the time of each event."""
    return numbers // EVENTS_AN_EPOCH


def _last_auction(numbers: Int64Array) -> Int64Array:
    """Return the newest auction, from 0, by the time of each event that is no person."""
    epoch, offset = numbers // EVENTS_AN_EPOCH, numbers % EVENTS_AN_EPOCH
    return epoch * AUCTIONS + np.minimum(offset - PERSONS, AUCTIONS - 1)


def _active_person(random: np.random.Generator, numbers: Int64Array) -> Int64Array:
    """Return for each event one of the people of the last time, or of those soon to come."""
    people = _last_person(numbers) + 1
    active = np.minimum(people, _ACTIVE_PEOPLE)
    return people - active + random.integers(active + _LEAD)


def _prices(random: np.random.Generator, count: int) -> Int64Array:
    """Return prices in cents, from a dollar to a million, as many of each magnitude."""
    return np.rint(10.0 ** (random.random(count) * 6.0) * 100.0).astype(np.int64)


def _chosen(random: np.random.Generator, words: Sequence[str], count: int) -> pa.Array:
    return pa.array(words).take(pa.array(random.integers(len(words), size=count)))


def _joined(separator: str, *parts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*parts, separator)


def _lengths(words: pa.Array) -> Int64Array:
    lengths: Int64Array = pc.binary_length(words).to_numpy().astype(np.int64)
    return lengths


def _strings(letters: npt.NDArray[np.uint8], lengths: Int64Array) -> pa.Array:
    """Return strings of the given lengths, cut from `letters` one after another."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(letters))


def _words(random: np.random.Generator, count: int, length_max: int) -> pa.Array:
    """Return strings of less than `length_max` letters, one in thirteen a space, none outside."""
    lengths = random.integers(3, length_max, size=count)
    total = int(lengths.sum())
    letters = random.integers(ord("a"), ord("z") + 1, size=total, dtype=np.uint8)
    letters[random.integers(13, size=total) == 0] = ord(" ")
    return pc.utf8_trim_whitespace(_strings(letters, lengths))


def _extra(random: np.random.Generator, sizes: Int64Array, wanted: int) -> pa.Array:
    """Return letters that bring events of `sizes` bytes to about `wanted`, give or take a fifth."""
    missing = np.maximum(wanted - sizes, 0)
    delta = np.rint(missing * 0.2).astype(np.int64)
    lengths = missing - delta + random.integers(np.maximum(2 * delta, 1))
    total = int(lengths.sum())
    return _strings(random.integers(ord("a"), ord("z") + 1, size=total, dtype=np.uint8), lengths)


def _cards(random: np.random.Generator, count: int) -> pa.Array:
    """Return card numbers: four groups of four digits."""
    letters = np.full((count, 19), ord(" "), dtype=np.uint8)
    digits = random.integers(ord("0"), ord("9") + 1, size=(count, 16), dtype=np.uint8)
    letters[:, [each for each in range(19) if each % 5 != 4]] = digits
    return _strings(letters.ravel(), np.full(count, 19, np.int64))


@cache
def _channels(seed: int) -> tuple[pa.Array, pa.Array]:
    """Return the channels, the hot ones first, and their pages."""
    random = np.random.default_rng([seed, 2**32])
    count = len(_HOT_CHANNELS) + _CHANNELS
    names = [*_HOT_CHANNELS, *(f"channel-{each}" for each in range(_CHANNELS))]
    folders = [pc.replace_substring(_words(random, count, 5), " ", "_") for _ in range(3)]
    base = _joined("/", pa.array(["https://www.nexmark.com"] * count), *folders)
    base = _joined("", base, pa.array(["/item.htm?query=1"] * count))
    known = random.integers(10, size=count) > 0
    known[: len(_HOT_CHANNELS)] = False
    suffixes = [
        f"&channel_id={_reversed_bits(index - len(_HOT_CHANNELS))}" if known[index] else ""
        for index in range(count)
    ]
    return pa.array(names), _joined("", base, pa.array(suffixes))


def _reversed_bits(number: int) -> int:
    """Return the size of the 32-bit integer whose bits are those of `number`, backwards."""
    found = int(f"{number:032b}"[::-1], 2)
    return abs(found - 2**32 if found >= 2**31 else found)
