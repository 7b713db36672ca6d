"""The job as plain data: what the planner hands to the runtime and a host ships to workers.

A job is a row of stages. Inside a stage a batch passes from node to node by function call;
between stages it crosses an exchange, which re-keys rows over the workers. Every worker
runs every stage on its share.

    sources ─▶ operators ─▶ sinks            (stage 0)
                   └──▶ exchange ─▶ operators ─▶ sinks   (stage 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from millstream.log.predicate import Predicate
from millstream.operators.operator import OperatorConfig


@dataclass(frozen=True, slots=True)
class Edge:
    """One output port of a node: a source, an exchange or an operator, by name."""

    node: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class SourceNode:
    """A topic read as events or as a table.

    Parameters
    ----------
    name
        Unique and stable in the job; positions in checkpoints go by it.
    topic
        The topic's name.
    role
        `"stream"`: each worker reads its share of the partitions. `"table"`: each worker
        reads all partitions (a broadcast), to the captured end before any stream row.
    schema
        Columns that are read, in this order; a projection of the topic's.
    time_column, lateness_us
        Event time and how far the watermark trails its maximum; `None` and 0 without time.
    stamped
        Whether rows carry `_stamp`: some operator downstream decides lateness.
    idle_timeout_us
        After how long without data a partition read to its end stops holding the watermark.
    changes
        The topic is a table and its rows come as upserts: with `_op` behind the columns, which
        says of each whether it is a tombstone.
    where
        Frames in which no row fulfils this may be left out; those that come are not filtered.
    location
        `file:line` of the user's job that made the node.
    position
        The number of the source, where rows carry `_position`; `None`: they do not.
    processing_time
        Whether `time_column`, which is not of the topic, says when a row is read.
    """

    name: str
    topic: str
    role: Literal["stream", "table"]
    schema: pa.Schema
    time_column: str | None = None
    lateness_us: int = 0
    stamped: bool = False
    idle_timeout_us: int | None = None
    where: Predicate | None = None
    changes: bool = False
    location: str = ""
    position: int | None = None
    processing_time: bool = False

    @property
    def event_time(self) -> str | None:
        """The topic's column that time comes from, by which its rows are in order."""
        return None if self.processing_time else self.time_column


@dataclass(frozen=True, slots=True)
class OperatorNode:
    """An operator and where its inputs come from, in the order of its `input_index`.

    `restores_from` names another operator whose state this one reads when it is restored,
    having none of its own.
    """

    name: str
    config: OperatorConfig
    inputs: tuple[Edge, ...]
    location: str = ""
    restores_from: str | None = None


@dataclass(frozen=True, slots=True)
class ExchangeNode:
    """Rows leave a stage by the hash of `key_columns` and enter a later one.

    Downstream nodes name the exchange as their `Edge.node`.
    """

    name: str
    input: Edge
    key_columns: tuple[str, ...]
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class SinkNode:
    """Rows are appended to `topic` in the job's transactions.

    A missing topic is created with `partitions`, `key_columns` and `time_column`.
    `kind="memory"` keeps the rows in the process instead (`collect()`); it promises
    nothing across a crash. With `upsert` the topic is a table: rows may come with `_weight` or
    `_op`, and the last one of each key is written as a row, or as a tombstone.
    """

    name: str
    topic: str
    input: Edge
    schema: pa.Schema
    key_columns: tuple[str, ...] = ()
    time_column: str | None = None
    partitions: int = 1
    kind: Literal["log", "memory"] = "log"
    upsert: bool = False
    location: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """What lies between two exchanges. `operators` is in topological order."""

    index: int
    sources: tuple[SourceNode, ...]
    receives: tuple[ExchangeNode, ...]
    operators: tuple[OperatorNode, ...]
    sends: tuple[ExchangeNode, ...]
    sinks: tuple[SinkNode, ...]


@dataclass(frozen=True, slots=True)
class JobGraph:
    """A whole job at one parallelism. Exchanges lead from a stage to a later one only."""

    name: str
    parallelism: int
    stages: tuple[Stage, ...]


KEY_GROUPS = 4096
"""Keys are hashed into this many groups, for ever; state and partitions move by group."""


def key_groups_of_worker(worker: int, parallelism: int) -> range:
    """Return the key groups that worker `worker` of `parallelism` owns: ⌊group·P/4096⌋ = worker.

    Examples
    --------
    >>> key_groups_of_worker(1, 4)
    range(1024, 2048)
    """
    first = -(-worker * KEY_GROUPS // parallelism)
    last = -(-(worker + 1) * KEY_GROUPS // parallelism)
    return range(first, last)


def partitions_of_worker(worker: int, parallelism: int, partitions: int) -> tuple[int, ...]:
    """Return the source partitions that a worker reads; every partition has one worker."""
    return tuple(p for p in range(partitions) if p * parallelism // partitions == worker)
