"""The harness of a job under test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.dsl.location import user_location
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.dsl.sink import Sink
from millstream.dsl.windows import duration_option
from millstream.errors import OptionError, PlanError, UnknownTopicError, nearest
from millstream.log import Log
from millstream.plan.compile import compile_job
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk
from millstream.testing.played_attempt import PlayedAttempt
from millstream.testing.rows import Rows, table_of, time_us_of

Job: TypeAlias = "Sink | Sequence[Sink] | Callable[[], Sink | Sequence[Sink]]"
"""What `ms.run` takes, or what makes it."""

_PATH = "/log"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that a job under test reads.

    Parameters
    ----------
    schema
        Its columns.
    time
        The column with the event time.
    key
        By which it is partitioned; of a table, by which the latest row is found.
    table
        The latest row of a key replaces the ones before it.
    partitions
        How many.
    """

    schema: pa.Schema
    time: str | None = None
    key: str | Sequence[str] = ()
    table: bool = False
    partitions: int = 1


class _Never:
    """What the disk's power cuts would be decided by: there are none."""

    def random(self) -> float:
        """Return the middle."""
        return 0.5

    def randrange(self, start: int, stop: int, /) -> int:
        """Return the first."""
        return start


class Harness:
    """Runs one job on one thread over a log in memory; nothing happens but by its methods.

    Every method returns when the job has done all that follows from it and its results are
    committed, as by a checkpoint: what is seen is what a reader of the log would see. No time
    passes but by `advance` (event time) and `wait` (the clock).

    Parameters
    ----------
    **topics
        What the job reads: a `Topic`, or a schema alone.

    Examples
    --------
    >>> import millstream as ms
    >>> from millstream.testing import Harness, Topic
    >>> clicks = Topic(pa.schema([("at", pa.timestamp("us", "UTC")), ("page", pa.string())]), "at")
    >>> harness = Harness(clicks=clicks)
    >>> def build():
    ...     hours = ms.stream("clicks").key_by("page").window(ms.tumbling("1h"))
    ...     return hours.agg(clicks=ms.count()).to("hours")
    >>> harness.start(build)
    >>> harness.send("clicks", [{"at": "2026-01-01 10:20", "page": "a"}])
    >>> harness.rows("hours", "page", "clicks")
    []
    >>> harness.advance("2026-01-01 11:00")
    >>> harness.rows("hours", "page", "clicks")
    [{'page': 'a', 'clicks': 1}]
    """

    def __init__(self, /, **topics: Topic | pa.Schema) -> None:
        self._clock = ManualClock()
        self._disk = MemoryDisk(_Never())
        self._log = self._open_log()
        self._attempt: PlayedAttempt | None = None
        self._sinks: tuple[Sink, ...] = ()
        self._seen: dict[str, int] = {}
        self._late_before = 0
        for name, topic in topics.items():
            made = topic if isinstance(topic, Topic) else Topic(topic)
            self._log.create_topic(
                name,
                made.schema,
                time=made.time,
                key=(made.key,) if isinstance(made.key, str) else tuple(made.key),
                table=made.table,
                partitions=made.partitions,
            )

    @property
    def log(self) -> Log:
        """The log that the job reads and writes."""
        return self._log

    def start(self, job: Job, *, parallelism: int = 1) -> None:
        """Start the job; given a function, it is called with the harness's log as the default.

        Parameters
        ----------
        job
            Sinks, built over `harness.log`, or a function that builds them, such as a script's
            `build`.
        parallelism
            For how many workers.

        Raises
        ------
        PlanError
            When the job cannot be used as it is, or one runs already.
        """
        location = user_location()
        if self._attempt is not None:
            message = f"{location}: a job runs already; a harness is for one, make another"
            raise PlanError(message)
        with override_run(RunOverrides(log=self._log)):
            built = job() if callable(job) else job
        sinks = (built,) if isinstance(built, Sink) else tuple(built)
        if not sinks or not all(isinstance(each, Sink) for each in sinks):
            message = (
                f"{location}: start takes sinks, stream.to(…), or what returns them; got {built!r}"
            )
            raise PlanError(message)
        self._sinks = sinks
        self._begin(parallelism)

    def send(self, topic: str, rows: Rows, *, partition: int | None = None) -> None:
        """Append rows to a topic and let the job take them.

        Parameters
        ----------
        rows
            Dicts, in which times may be text and columns may be missing, or a table.
        partition
            Where to; by default by the topic's key, or the first.

        Raises
        ------
        UnknownTopicError, UnknownColumnError, OptionError
            When the topic, a column or a value does not fit.
        """
        config = self._topic(topic).config
        if partition is None and not config.key:
            partition = 0
        with self._log.producer(topic) as producer:
            producer.append(table_of(rows, config.schema, topic), partition=partition)
        self._settle()

    def delete(self, topic: str, keys: Rows) -> None:
        """Append tombstones to a table's topic and let the job take them."""
        config = self._topic(topic).config
        schema = pa.schema([config.schema.field(each) for each in config.key])
        with self._log.producer(topic) as producer:
            producer.delete(table_of(keys, schema, topic))
        self._settle()

    def advance(self, time: str | datetime) -> None:
        """Let event time come to `time` in every stream, as rows would that were that new."""
        self._running().settle()
        self._running().advance(time_us_of(time))
        self._settle()

    def wait(self, duration: str | timedelta) -> None:
        """Let the clock go on, by which partitions become idle and processing time is told."""
        self._clock.sleep_us(duration_option("duration", duration, user_location()))
        self._settle()

    def rows(self, topic: str, *columns: str) -> list[dict[str, Any]]:
        """Return all rows of a topic, in the order of its partitions, or some columns of them."""
        return self.table(topic, *columns).to_pylist()

    def table(self, topic: str, *columns: str) -> pa.Table:
        """Return all rows of a topic as columns."""
        return self._topic(topic).to_arrow(columns or None)

    def new_rows(self, topic: str, *columns: str) -> list[dict[str, Any]]:
        """Return the rows that came since this was last asked for the topic."""
        rows = self.table(topic, *columns)
        seen, self._seen[topic] = self._seen.get(topic, 0), rows.num_rows
        return rows.slice(seen).to_pylist()

    def latest(self, topic: str) -> list[dict[str, Any]]:
        """Return the rows that a topic, which is a table, holds now: the latest of each key."""
        return self._topic(topic).latest().to_pylist()

    @property
    def late_rows(self) -> int:
        """How many rows came too late for what they were meant for, so far."""
        return self._late_before + self._late_now()

    def state(self, operator: str) -> pa.Table:
        """Return an operator's state as it is stored; operators are named in `explain()`.

        Raises
        ------
        OptionError
            When there is no such operator, or it keeps no state.
        """
        attempt = self._running()
        known = attempt.operators()
        if operator not in known:
            message = f"the job has no operator {operator!r}{nearest(operator, list(known))}"
            raise OptionError(message)
        rows = attempt.state(operator)
        return pa.table({}) if rows is None else rows

    def restart(self, *, parallelism: int | None = None) -> None:
        """End the job as `Ctrl-C` does and start it from its checkpoint, for as many workers."""
        attempt = self._running()
        self._late_before += self._late_now()
        attempt.end(drained=False)
        self._begin(parallelism or attempt.coordinator.graph.parallelism)

    def end(self) -> None:
        """Let all streams end: what is open is given out, and the job is over."""
        attempt = self._running()
        attempt.end(drained=True)
        self._late_before += self._late_now()
        self._attempt = None

    def _begin(self, parallelism: int) -> None:
        roots = [each.node for each in self._sinks]
        self._attempt = PlayedAttempt(
            lambda workers, partitions: compile_job(roots, "job", workers, partitions),
            self._open_log,
            self._clock,
            RunOptions(parallelism=parallelism, checkpoint_interval_us=1),
        )
        self._settle()

    def _settle(self) -> None:
        if self._attempt is not None:
            self._attempt.checkpoint()

    def _late_now(self) -> int:
        if self._attempt is None:
            return 0
        return sum(each.rows_late for _, each in self._attempt.counters())

    def _running(self) -> PlayedAttempt:
        if self._attempt is None:
            message = f"{user_location()}: no job runs; call start first"
            raise PlanError(message)
        return self._attempt

    def _topic(self, name: str) -> Any:
        names = self._log.topic_names()
        if name not in names:
            message = f"{user_location()}: there is no topic {name!r}{nearest(name, names)}"
            raise UnknownTopicError(message)
        return self._log.topic(name)

    def _open_log(self) -> Log:
        return Log(_PATH, storage=self._disk.storage("job"), clock=self._clock)
