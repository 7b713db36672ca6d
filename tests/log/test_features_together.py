"""Hypothesis drives every feature of a log in turn, against a model of it in plain lists."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from millstream.log import Log
from millstream.log.backup import back_up, restore
from millstream.log.consumer import TopicPartition
from millstream.storage_memory import MemoryDisk
from tests.log.log_kit import log_on

SCHEMA = pa.schema([("id", pa.int64()), ("key", pa.int8())])
SMALL = {"segment.bytes": 1_200}
CONFIGS: dict[str, dict[str, Any]] = {
    "moved": {**SMALL, "remote.storage.place": "/store", "local.retention.bytes": 0},
    "kept": {**SMALL, "retention.bytes": 3_000},
    "table": SMALL,
}
topics = st.sampled_from(sorted(CONFIGS))
keys = st.lists(st.integers(0, 3), min_size=1, max_size=4)
Row = tuple[int, int, int | None]
"""Id, key, and what is in the column that came last."""


class FeatureMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.disk = MemoryDisk(random.Random(seed))
        self.rows: dict[str, list[Row]] = {name: [] for name in CONFIGS}
        self.columns = dict.fromkeys(CONFIGS, 0)
        self.next_id = self.sequence = self.consumed = self.processed = 0
        self.reopen()
        for name, config in CONFIGS.items():
            table = name == "table"
            self.log.create_topic(name, SCHEMA, key=["key"], table=table, config=config)

    @rule()
    def reopen(self) -> None:
        self.log: Log = log_on(self.disk.storage("process"))

    @rule()
    def power_cut(self) -> None:
        """Everything is flushed by then: nothing may be lost."""
        self.disk.power_cut()
        self.reopen()

    def batch(self, topic: str, of_keys: list[int]) -> tuple[pa.RecordBatch, list[Row]]:
        ids = list(range(self.next_id, self.next_id + len(of_keys)))
        self.next_id += len(ids)
        columns = {"id": pa.array(ids), "key": pa.array(of_keys, pa.int8())}
        more = [each * 7 if self.columns[topic] else None for each in ids]
        if self.columns[topic]:
            columns[f"more{self.columns[topic]}"] = pa.array(more)
        return pa.record_batch(columns), list(zip(ids, of_keys, more, strict=True))

    @rule(topic=topics, of_keys=keys, dressed=st.booleans())
    def append(self, topic: str, of_keys: list[int], dressed: bool) -> None:
        batch, rows = self.batch(topic, of_keys)
        extras: dict[str, Any] = {}
        if dressed:
            extras = {"headers": [{"h": b"1"} for _ in rows], "timestamps": [1] * len(rows)}
        with self.log.producer(topic) as producer:
            producer.append(batch, **extras)
        self.rows[topic] += rows

    @rule(topic=topics, of_keys=keys, times=st.integers(1, 3))
    def append_again(self, topic: str, of_keys: list[int], times: int) -> None:
        """A named producer, in one life after another, makes one append several times."""
        batch, rows = self.batch(topic, of_keys)
        self.sequence += 1
        for _ in range(times):
            with self.log.producer(topic, name="named") as producer:
                producer.append(batch, sequence=self.sequence)
        self.rows[topic] += rows

    @rule(of_keys=keys, commits=st.booleans())
    def transact(self, of_keys: list[int], commits: bool) -> None:
        """Rows of two topics and a group's offset: all or nothing."""
        made = {topic: self.batch(topic, of_keys) for topic in ("moved", "table")}
        with self.log.transaction("owner") as transaction:
            for topic, (batch, _) in made.items():
                transaction.append(topic, batch)
            place = TopicPartition("kept", 0)
            transaction.commit_offsets("copies", {place: self.processed + 1})
            if not commits:
                transaction.abort()
        if commits:
            self.processed += 1
            for topic, (_, rows) in made.items():
                self.rows[topic] += rows

    @rule(topic=topics)
    def clean(self, topic: str) -> None:
        self.log.clean(topic)

    @rule(topic=topics, key=st.integers(0, 3))
    def erase(self, topic: str, key: int) -> None:
        self.log.erase(topic, pa.table({"key": pa.array([key], pa.int8())}))
        self.rows[topic] = [row for row in self.rows[topic] if row[1] != key]

    @rule(topic=topics, compression=st.sampled_from(["none", "lz4", "zstd"]))
    def evolve(self, topic: str, compression: str) -> None:
        self.columns[topic] += 1
        field = pa.field(f"more{self.columns[topic]}", pa.int64())
        self.log.alter_topic(topic, add_columns=[field], config={"compression.type": compression})
        self.rows[topic] = [(*row[:2], None) for row in self.rows[topic]]

    @rule(commits=st.booleans())
    def consume(self, commits: bool) -> None:
        """A member of a group goes on where the last one committed."""
        with self.log.consumer("moved", group="readers", auto_commit=False) as consumer:
            while (batch := consumer.poll()) is not None:
                assert batch.num_rows
            if commits and consumer.positions:
                consumer.commit()
                (position,) = consumer.positions.values()
                assert position >= self.consumed
                self.consumed = position

    @rule()
    def copy(self) -> None:
        """A backup, restored, is the log."""
        number = back_up(self.log, "/spare").number
        storage = self.disk.storage("restore")
        storage.remove("/restored")
        restore("/spare", "/restored", storage, number)
        self.check(Log("/restored", storage=storage, clock=self.log.clock))

    @invariant()
    def the_log_is_the_model(self) -> None:
        if hasattr(self, "log") and len(self.log.topic_names()) == len(CONFIGS):
            self.check(self.log)

    def check(self, log: Log) -> None:
        for topic, rows in self.rows.items():
            found = self.read(log, topic)
            if topic == "kept":  # the oldest may be gone
                assert found == rows[len(rows) - len(found) :]
                self.rows[topic] = found
            elif topic == "table":
                latest = {row[1]: row for row in rows}
                assert {row[1]: row for row in found} == latest
            else:
                assert found == rows
        assert self.processed == 0 or log.group("copies").committed() == {
            TopicPartition("kept", 0): self.processed
        }

    def read(self, log: Log, topic: str) -> list[Row]:
        more = f"more{self.columns[topic]}" if self.columns[topic] else None
        names = ["id", "key", *([more] if more else [])]
        found = log.topic(topic)
        table = found.latest().select(names) if topic == "table" else found.to_arrow(names)
        return [(row["id"], row["key"], row.get(more)) for row in table.to_pylist()]


def test_features_get_on_with_each_other() -> None:
    run_state_machine_as_test(
        FeatureMachine,
        settings=settings(
            max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck)
        ),
    )
