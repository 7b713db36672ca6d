"""The job that runs on Ray in tests, which the test feeds, and how far it is."""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from millstream.dsl.execution import ray_host
from millstream.log import Log
from millstream.runtime.attempt import read_manifest
from millstream.runtime.control import JobControl, JobRecord, JobState
from millstream.runtime.handle import JobHandle
from millstream.runtime.journal import Journal, JournalRecord
from millstream.runtime.restart import RestartStrategy
from tests.runtime.hosts.ray_driver import LATENESS, options
from tests.runtime.late_flights import (
    MINUTE_US,
    OUTPUTS,
    compiler,
    expected,
    load,
    make_flights,
    outcome,
)

JOB = "late_flights"
LATENESS_US = 10 * MINUTE_US  # as in ray_driver.py
PARTITIONS = 4
ROWS_MAX = 120_000
ROWS_PER_S = 4_000
ROWS_AT_ONCE = 40
TIMEOUT_S = 120.0
POLL_S = 0.02
"""What other processes do can only be looked at again and again."""


def seeded(*what: object) -> random.Random:
    """What is chosen at random in a test, by a seed that a failed one prints."""
    seed = os.environ.get("MILLSTREAM_SEED") or random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"MILLSTREAM_SEED={seed}\n")
    return random.Random(f"{seed} {what}")


class FedJob:
    """A job without an end: while the test waits for something, it writes rows for it.

    So there is always something on its way, however fast the machine is.

    Parameters
    ----------
    path
        Of a new log.
    """

    def __init__(self, path: Path) -> None:
        self.log = Log(path)
        self.written = 0
        self.run = ""
        """The run that is waited for."""
        load(self.log, random.Random(7), count=0, partitions=PARTITIONS)
        self._flights = make_flights(random.Random(7), ROWS_MAX)
        self._producer = self.log.producer("flights")
        self._due_s = time.monotonic()

    def submit(self, parallelism: int, **settings: Any) -> JobHandle:
        """Start a run of it on the Ray that this process is connected to."""
        self.run = uuid.uuid4().hex
        settings.setdefault("restart", RestartStrategy(first_delay_us=1_000))
        host = ray_host()
        handle: JobHandle = host.submit_job(
            compiler(self.log, LATENESS),
            self.log,
            options(parallelism, self.run),
            host.RaySettings(**settings),
        )
        return handle

    def feed(self) -> None:
        """Write some more rows, where it is time to."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + ROWS_AT_ONCE / ROWS_PER_S
        assert self.written < ROWS_MAX, "there are no more rows"
        self._producer.append(self._flights.slice(self.written, ROWS_AT_ONCE))
        self._producer.flush()  # until then nobody may read them
        self.written += ROWS_AT_ONCE

    def record(self) -> JobRecord | None:
        """What the run says of itself."""
        record = JobControl(self.log, JOB).record()
        return record if record is not None and record.run == self.run else None

    def journal(self, event: str) -> list[JournalRecord]:
        """What happened to it, of one kind."""
        return [each for each in Journal(self.log, JOB).read() if each.event == event]

    def wait_until(self, holds: Callable[[JobRecord], bool]) -> JobRecord:
        """Wait until the job says so of itself; it must not be over before."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            record = self.record()
            if record is not None and holds(record):
                return record
            assert time.monotonic() < deadline_s, record
            assert record is None or not record.state.is_over, record
            self.feed()
            time.sleep(POLL_S)

    def wait_mid_run(self, attempt: int = 1) -> JobRecord:
        """Wait until an attempt has completed two checkpoints and read rows."""

        def holds(record: JobRecord) -> bool:
            return (
                record.state is JobState.RUNNING
                and record.attempt >= attempt
                and (record.checkpoint or 0) - (record.restored or 0) >= 2
                and all(each.pid for each in record.workers)
                and sum(each.rows_read for each in record.workers) > ROWS_AT_ONCE
            )

        return self.wait_until(holds)

    def wait_for(self, duration_s: float) -> None:
        """Let it work for a while."""
        until_s = time.monotonic() + duration_s
        while (left_s := until_s - time.monotonic()) > 0:
            self.feed()
            time.sleep(min(left_s, POLL_S))

    def wait_for_rows_in_flight(self) -> None:
        """Wait until it has written what it has not committed: for some milliseconds only."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while self.rows_in_flight() == 0:
            assert time.monotonic() < deadline_s, "it writes nothing"
            self.feed()

    def rows_in_flight(self) -> int:
        """How many rows lie in its topics that no checkpoint has committed yet."""
        topics = [self.log.topic(each) for each in OUTPUTS if each in self.log.topic_names()]
        written = sum(
            each.partition(index).written_end for each in topics for index in range(each.partitions)
        )
        return written - sum(sum(each.stable_ends()) for each in topics)

    def rows_taken_back(self) -> int:
        """How many rows of its topics nobody ever saw: attempts that died wrote them."""
        topics = [Log(self.log.path).topic(name) for name in OUTPUTS]
        return sum(sum(each.stable_ends()) - each.to_arrow().num_rows for each in topics)

    def end_well(self, handle: JobHandle) -> None:
        """Let it read no further and end, and check what it gave out."""
        handle.drain()
        result = handle.wait(TIMEOUT_S)
        assert result is not None
        assert result.finished
        assert handle.status().state is JobState.FINISHED
        self.check()

    def check(self) -> None:
        """The output is the model's over all that was read, and nothing is left open."""
        reader = Log(self.log.path)
        manifest = read_manifest(reader, JOB)
        assert manifest is not None
        read = manifest.sources["source-flights"].partitions
        ends = [read[str(index)].offset for index in range(PARTITIONS)]
        assert outcome(reader) == expected(reader, LATENESS_US, ends)
        self.check_that_nothing_is_open()

    def check_that_nothing_is_open(self) -> None:
        """No transaction was left undecided."""
        reader = Log(self.log.path)
        for name in OUTPUTS:
            topic = reader.topic(name)
            assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"
