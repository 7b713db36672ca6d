"""Any job, at any parallelism, batching and schedule, gives the rows of the row-by-row model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.clock import ManualClock
from millstream.log import Log
from millstream.operators import match_index
from millstream.runtime.hosts.simulated import Faults, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk
from tests.examples import examples
from tests.runtime.job_model import (
    OUTPUTS,
    Job,
    JoinKind,
    Model,
    Row,
    Shape,
    Then,
    Window,
    sinks,
)
from tests.runtime.kit import NAMES, PATH, TIME, compiler, put_names, rows_of

T = TypeVar("T")
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Input:
    """What is in the log before a run.

    Parameters
    ----------
    one, two
        Frames of rows (time in seconds, key, parity, value); which partition each goes to.
    names
        What the table holds from now on; `None`: the key is gone.
    """

    one: tuple[tuple[int, tuple[Row, ...]], ...]
    two: tuple[tuple[int, tuple[Row, ...]], ...]
    names: dict[str, str | None]


@dataclass(frozen=True)
class Topics:
    """How the two streams lie in the log."""

    partitions: tuple[int, int]
    key: tuple[str, ...]
    unit: str
    zone: str | None


@dataclass
class Case:
    """A job's topics, its model, and how much of the topics the model has seen."""

    topics: Topics
    model: Model
    names: dict[str, str] = field(default_factory=dict)
    seen: dict[tuple[str, int], int] = field(default_factory=dict)

    def create(self, log: Log) -> None:
        nullable = self._schema("one")
        required = pa.schema([each.with_nullable(False) for each in self._schema("two")])
        for name, schema, count in zip(
            ("one", "two"), (nullable, required), self.topics.partitions, strict=True
        ):
            log.create_topic(name, schema, partitions=count, key=self.topics.key, time="time")
        log.create_topic("names", NAMES, key=("key",), table=True)

    def append(self, log: Log, given: Input) -> None:
        """Write the rows of a run to the log, and let the model compute with them."""
        put_names(log, "names", **given.names)
        for key, name in given.names.items():
            self.names.pop(key, None)
            if name is not None:
                self.names[key] = name
        for topic, frames in (("one", given.one), ("two", given.two)):
            for partition, rows in frames:
                self._append_frame(log, topic, partition, rows)
        self.model.run(self.names, self._new_rows(log, "one"), self._new_rows(log, "two"))

    def check(self, log: Log) -> None:
        """Every topic that the job wrote holds what the model says."""
        for name in OUTPUTS:
            expected = self.model.outputs[name]
            if name not in log.topic_names():
                assert expected == []
                continue
            columns = log.topic(name).schema.names
            rows = [tuple(each[column] for column in columns) for each in expected]
            assert rows_of(log, name) == sorted(rows, key=repr), name
            topic = log.topic(name)
            assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"

    def _schema(self, topic: str) -> pa.Schema:
        unit, zone = (self.topics.unit, self.topics.zone) if topic == "one" else ("us", "UTC")
        columns = {"time": pa.timestamp(unit, zone), "key": pa.string()}
        return pa.schema({**columns, "parity": pa.int32(), "value": pa.int64()})

    def _append_frame(self, log: Log, topic: str, partition: int, rows: Sequence[Row]) -> None:
        schema = log.topic(topic).schema
        factor = UNITS[schema.field("time").type.unit]
        columns: dict[str, Any] = {
            name: [each[name] for each in rows] for name in ("key", "parity", "value")
        }
        times = pa.array([each["time"] * factor for each in rows], pa.int64())
        columns["time"] = times.cast(schema.field("time").type)
        where = None if self.topics.key else partition % log.topic(topic).partitions
        with log.producer(topic) as producer:
            producer.append(pa.table(columns, schema=schema), partition=where)

    def _new_rows(self, log: Log, name: str) -> list[list[Row]]:
        topic = log.topic(name)
        found = []
        for index in range(topic.partitions):
            reader = topic.reader(index, offset=self.seen.get((name, index), 0))
            rows: list[Row] = []
            while (batch := reader.read()) is not None:
                times = batch.column("time").cast(TIME).cast(pa.int64()).to_pylist()
                rows += [
                    {**row, "time": time_us // 1_000_000}
                    for row, time_us in zip(batch.to_pylist(), times, strict=True)
                ]
            self.seen[name, index] = reader.position
            found.append(rows)
        return found


def rows(*, nulls: bool) -> st.SearchStrategy[Row]:
    values = st.integers(-3, 9)
    keys = st.sampled_from(["a", "b", "c", "a longer key"])
    return st.fixed_dictionaries(
        {
            "time": st.integers(-20, 150),
            "key": st.none() | keys if nulls else keys,
            "parity": st.integers(0, 1),
            "value": st.none() | values if nulls else values,
        }
    )


def frames(*, nulls: bool) -> st.SearchStrategy[tuple[tuple[int, tuple[Row, ...]], ...]]:
    frame = st.tuples(
        st.integers(0, 3), st.lists(rows(nulls=nulls), min_size=1, max_size=8).map(tuple)
    )
    return st.lists(frame, max_size=6).map(tuple)


INPUTS = st.builds(
    Input,
    frames(nulls=True),
    frames(nulls=False),
    st.dictionaries(st.sampled_from("abz"), st.none() | st.sampled_from(["A", "B"])),
)
TOPICS = st.builds(
    Topics,
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([(), ("key",)]),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from([None, "UTC", "Europe/Berlin"]),
)


KEYS: list[tuple[str, ...]] = [("key",), ("key", "parity"), ("parity",)]
THEN: list[Then] = ["nothing", "results", "late rows", "united results"]
SHAPES: list[Shape] = ["one", "both", "branched"]
JOINS: list[JoinKind | None] = [None, "inner", "left"]


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    def one_of(choices: Sequence[T]) -> T:
        return draw(st.sampled_from(choices))

    keys, then = one_of(KEYS), one_of(THEN)
    behind = KEYS if then == "late rows" else [keys[:1], keys[-1:], ("n",)]
    return Job(
        lateness_s=one_of([0, 5, 100]),
        shape=one_of(SHAPES),
        above=one_of([None, -1, 4]),
        join=one_of(JOINS),
        join_names=one_of(JOINS),
        window=Window(keys, one_of([7, 10]), one_of([0, 20]), one_of([None, 3, 5, 0])),
        then=then,
        second=Window(one_of(behind), one_of([5, 30]), one_of([0, 9]), one_of([None, 5, 0])),
    )


class Simulated:
    """A disk, and jobs that are simulated on it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = MemoryDisk(self.random)

    def log(self) -> Log:
        """The log as a new process opens it."""
        return Log(PATH, storage=self.disk.storage("test"), clock=ManualClock())

    def run(self, job: Job, faults: Faults) -> None:
        """Run a job to its end, at some parallelism, in batches of some size."""
        options = RunOptions(
            parallelism=self.random.choice((1, 2, 3, 4)),
            until="end",
            checkpoint_interval_us=self.random.choice((300, 3_000)),
            batch_rows=self.random.choice((1, 3, 50)),
            channel_bytes=self.random.choice((1, 10_000)),
            held_rows=self.random.choice((0, 3, 100)),
        )
        run_simulated(
            compiler(sinks(job, self.log())),
            self.disk,
            PATH,
            options,
            seed=self.random.randrange(2**32),
            faults=faults,
            clock=ManualClock(),
        )


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    job=jobs(),
    topics=TOPICS,
    inputs=st.lists(INPUTS, min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
    faults=st.sampled_from([Faults(count_max=0), Faults(count_max=2, every_events=60)]),
    matches_max=st.sampled_from([1, 1000]),
)
def test_any_job_gives_what_the_model_gives(
    job: Job, topics: Topics, inputs: list[Input], seed: int, faults: Faults, matches_max: int
) -> None:
    # Each input is a run to the end, at a parallelism of its own.
    simulated = Simulated(seed)
    case = Case(topics, Model(job))
    case.create(simulated.log())
    with pytest.MonkeyPatch.context() as patch:
        # A join rests in the middle of a row's matches, too.
        patch.setattr(match_index, "OUTPUT_ROWS_MAX", matches_max)
        for each in inputs:
            case.append(simulated.log(), each)
            simulated.run(job, faults)
            case.check(simulated.log())
