"""Rows that wait for others: what becomes one batch, when it is passed on, and what follows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from millstream.clock import Clock, ManualClock
from millstream.runtime.gathering import PACE_US, WAIT_US, Gathering, Pacing
from tests.runtime.kit import EVENTS, events

ENOUGH_ROWS = 100


@dataclass
class Around:
    """What gathering knows of its stage."""

    reading: str = "events/0, offsets 0 to 4"
    clock: Clock = field(default_factory=ManualClock)


class Taker:
    """A consumer that notes what it is given, and has room when it is told so."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.batches: list[pa.RecordBatch] = []
        self.has_room = True

    def rows(self, rows: pa.RecordBatch) -> Iterator[None]:
        while not self.has_room:
            yield
        self.batches.append(rows)
        self.found.append(rows.column("value").to_pylist())

    def watermark(self, watermark_us: int, idle: bool) -> Iterator[None]:
        self.found.append((watermark_us, idle))
        yield from ()

    def end(self) -> Iterator[None]:
        self.found.append("end")
        yield from ()


def rows(*values: int) -> pa.RecordBatch:
    found = events(*[1] * len(values))
    index = EVENTS.get_field_index("value")
    return found.set_column(index, EVENTS.field(index), pa.array(values, EVENTS.field(index).type))


def done(work: Iterator[None]) -> None:
    assert list(work) == []


def gathering() -> tuple[Gathering, Taker, Around]:
    taker, around = Taker(), Around()
    return Gathering(taker, around, ENOUGH_ROWS), taker, around


def test_small_batches_become_one_with_the_last_watermark_behind_them() -> None:
    gathered, taker, _ = gathering()
    done(gathered.watermark(3, False))
    for value in (1, 2, 3):
        done(gathered.rows(rows(value)))
        done(gathered.watermark(value + 3, False))
    assert gathered.holds
    assert taker.found == [(3, False)]
    done(gathered.pass_on())
    assert not gathered.holds
    done(gathered.pass_on())
    assert taker.found == [(3, False), [1, 2, 3], (6, False)]


def test_the_end_comes_behind_everything() -> None:
    gathered, taker, _ = gathering()
    done(gathered.rows(rows(1)))
    done(gathered.watermark(4, True))
    done(gathered.end())
    assert taker.found == [[1], (4, True), "end"]


def test_enough_rows_are_passed_on_at_once() -> None:
    gathered, taker, _ = gathering()
    done(gathered.rows(rows(*[1] * (ENOUGH_ROWS - 1))))
    assert taker.found == []
    done(gathered.rows(rows(1)))
    assert taker.found == [[1] * ENOUGH_ROWS]


@pytest.mark.parametrize("by", ["rows", "watermark"])
def test_rows_do_not_wait_long_for_others(by: str) -> None:
    gathered, taker, around = gathering()
    done(gathered.rows(rows(1)))
    around.clock.sleep_us(WAIT_US - 1)
    done(gathered.watermark(1, False))
    assert taker.found == []
    around.clock.sleep_us(1)
    done(gathered.rows(rows(2)) if by == "rows" else gathered.watermark(2, False))
    assert taker.found == ([[1, 2], (1, False)] if by == "rows" else [[1], (2, False)])


def test_rows_of_two_schemas_do_not_become_one_batch() -> None:
    gathered, taker, _ = gathering()
    required = pa.schema([each.with_nullable(False) for each in EVENTS])
    done(gathered.rows(rows(1)))
    done(gathered.rows(pa.RecordBatch.from_arrays(rows(2).columns, schema=required)))
    done(gathered.end())
    assert [each.schema for each in taker.batches] == [EVENTS, required]


def test_rows_with_dictionaries_do_not_wait_for_others() -> None:
    gathered, taker, _ = gathering()
    type_ = pa.dictionary(pa.int8(), pa.string())
    for first in (0, 90):  # an index of 8 bits has no room for the values of both
        names = pa.array([f"name {first + index}" for index in range(90)]).dictionary_encode()
        done(gathered.rows(pa.record_batch([names.cast(type_)], names=["value"])))
    assert [each.num_rows for each in taker.batches] == [90, 90]


def test_messages_say_where_all_of_the_rows_were_read() -> None:
    gathered, _, around = gathering()
    done(gathered.rows(rows(1)))
    around.reading = "events/1, offsets 7 to 9"
    done(gathered.rows(rows(2)))
    done(gathered.pass_on())
    assert around.reading == "events/0, offsets 0 to 4 … events/1, offsets 7 to 9"


def test_it_rests_where_its_consumer_does() -> None:
    gathered, taker, _ = gathering()
    taker.has_room = False
    done(gathered.rows(rows(1)))
    done(gathered.watermark(1, False))
    work = gathered.pass_on()
    assert [next(work, "done") for _ in range(2)] == [None, None]
    assert taker.found == []
    taker.has_room = True
    assert list(work) == []
    assert taker.found == [[1], (1, False)]


def test_rows_pass_at_once_and_of_many_watermarks_one_in_a_while() -> None:
    taker, around = Taker(), Around()
    paced = Pacing(taker, around.clock)
    done(paced.watermark(1, False))
    for value in (2, 3):
        done(paced.rows(rows(value)))
        done(paced.watermark(value, False))
    assert taker.found == [(1, False), [2], [3]]
    assert paced.holds
    around.clock.sleep_us(PACE_US)
    done(paced.watermark(4, True))
    assert taker.found[3:] == [(4, True)]
    assert not paced.holds
    done(paced.watermark(5, False))
    done(paced.pass_on())
    done(paced.end())
    assert taker.found[4:] == [(5, False), "end"]
