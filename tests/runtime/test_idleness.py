"""Partitions that fall silent and come back: which rows are late may depend on it, nothing else."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

import millstream as ms
from millstream.log import Log
from tests.examples import examples
from tests.runtime.kit import Bench, Played, event_log, events, put, rows_of

TIMEOUT_US = 1_000


def sinks(log: Log) -> list[ms.Sink]:
    """Windows by key, and windows of their results by nothing that they lie by."""
    stream = ms.stream("events", lateness="5s", idle_timeout="1ms", log=log)
    first = stream.key_by("key").window(ms.tumbling("10s")).agg(n=ms.count())
    second = first.key_by("n").window(ms.tumbling("20s")).agg(windows=ms.count())
    return [
        first.to("first"),
        first.late().to("first_late"),
        second.to("second"),
        second.late().to("second_late"),
    ]


@dataclass
class Story:
    """What happens to a running job, chosen by a seed."""

    random: random.Random
    bench: Bench
    log: Log
    written: int = 0
    now_s: int = 0

    def tell(self, played: Played, events_count: int) -> None:
        for _ in range(events_count):
            match self.random.randrange(6):
                case 0:
                    self.bench.clock.sleep_us(self.random.randrange(3 * TIMEOUT_US))
                case 1 | 2:
                    self.write()
                case _:
                    for _ in range(self.random.randrange(30)):
                        played.step(self.random.randrange(len(played.workers)))

    def write(self) -> None:
        self.now_s += self.random.randrange(12)
        seconds = [
            self.now_s - self.random.randrange(25) for _ in range(self.random.randrange(1, 5))
        ]
        key = self.random.choice("abcd")
        put(self.log, "events", events(*seconds, key=key), self.random.randrange(3))
        self.written += len(seconds)


@settings(max_examples=examples(25))
@given(st.integers(0, 2**32), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_no_row_is_lost_or_counted_twice_and_no_window_is_given_out_twice(
    seed: int, parallelisms: list[int]
) -> None:
    bench = Bench()
    log = event_log(bench, partitions=3)
    story = Story(random.Random(seed), bench, log)
    story.write()
    for number, parallelism in enumerate(parallelisms):
        played = Played(bench, sinks(log), parallelism=parallelism, until=None, batch_rows=2)
        story.tell(played, 25)
        played.checkpoint()
        story.tell(played, 10)
        last = number == len(parallelisms) - 1
        if last:
            played.settle()
            played.coordinator.request_drain()
        else:
            played.coordinator.request_stop()
        played.tick()
        played.finish()

    first = rows_of(log, "first", "key", "window_start", "n")
    assert max(Counter((key, start) for key, start, _ in first).values(), default=1) == 1
    assert sum(n for *_, n in first) + len(rows_of(log, "first_late")) == story.written
    second = rows_of(log, "second", "n", "window_start", "windows")
    assert max(Counter((n, start) for n, start, _ in second).values(), default=1) == 1
    late = rows_of(log, "second_late")
    assert sum(windows for *_, windows in second) + len(late) == len(first)
