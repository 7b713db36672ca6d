"""The operator contract: what the worker calls, and what every operator promises.

    batch, watermark, barrier, end  ──▶  operator  ──▶  bounded pieces of output (port, batch)

An operator knows no clock, thread, disk or channel. `on_batch`, `on_watermark` and `on_end`
are generators: the worker takes one bounded piece at a time and lets the operator rest in
the middle of its input while no output has room. Between two inputs the operator is at a
barrier, and only there is `snapshot` called.

Batches are `pyarrow.RecordBatch`es. Beside the columns of the schema they may carry hidden
ones, whose names start with an underscore:

- `_stamp` (int64, microseconds): the watermark of the row's source partition just before
  the row. Carried from the source to the first timed operator, which decides lateness by it;
  rows that come out late there keep it.
- `_weight` (int64): the signed weight of the row in a changelog, as in DBSP's Z-sets
  (insert +1, delete -1). Absent where every row weighs +1. Where a row replaces another, both
  changes come one behind the other in one batch.
- `_op` (int8), of rows that come as upserts: 0 for a row, 1 where its key is gone. Absent where
  every one is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import pyarrow as pa

STAMP_COLUMN = "_stamp"
WEIGHT_COLUMN = "_weight"
OPERATION_COLUMN = "_op"
POSITION_COLUMN = "_position"
HIDDEN_COLUMNS = (STAMP_COLUMN, WEIGHT_COLUMN, POSITION_COLUMN)

KEY_GROUP_COLUMN = "_key_group"
REMOVED_COLUMN = "_removed"

OUTPUT_ROWS_MAX = 131_072
"""The most rows in one piece of output; an operator splits what is larger."""


class ChangeMode(Enum):
    """How rows relate to each other over time, as an operator consumes or produces them."""

    APPEND = "append"
    """Every row is a fact of its own with weight +1."""
    UPSERT = "upsert"
    """A row replaces the one before it of its key; with `_op` 1 it only takes that one away."""
    CHANGELOG = "changelog"
    """Rows carry signed weights; a later row may take back an earlier one."""


@dataclass(frozen=True, slots=True)
class Emit:
    """One bounded piece of output.

    Parameters
    ----------
    port
        Which output: 0 is the result; further ones are side outputs (1: late rows).
    batch
        At most `OUTPUT_ROWS_MAX` rows, with the schema that the operator's config gives
        for the port (and hidden columns where it passes them on).
    """

    port: int
    batch: pa.RecordBatch


WAIT = Emit(-1, pa.record_batch({}))
"""Given in place of a piece by an operator whose next one is not there yet: it is asked later."""


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """State at a barrier, or what changed of it since an earlier one.

    Parameters
    ----------
    full
        `True` when `rows` is the whole state, `False` when it is a change to be applied
        to what the snapshots before it gave.
    rows
        The state as a table. When the state is kept by key, column `_key_group` (int32)
        holds the key group of each row, so that it can be restored at another parallelism;
        column `_removed` (bool), where present, marks keys whose state is gone.
    values
        What is not kept by key (e.g. closed-until times): small, JSON-representable values.
    version
        Version of the state's layout, checked by `restore`.
    further
        Changes to be applied to `rows`, one after another, with the same columns.
    """

    full: bool
    rows: pa.Table | None
    values: dict[str, int | str | None] = field(default_factory=dict)
    version: int = 1
    further: tuple[pa.Table, ...] = ()


@dataclass(slots=True)
class OperatorCounters:
    """What an operator did since it was built; shown by `explain(counters=True)`.

    `rows_numba`, `rows_arrow` and `rows_python` count input rows by what they went through:
    a row that passes several counts in each.
    """

    rows_in: int = 0
    rows_out: int = 0
    rows_late: int = 0
    rows_numba: int = 0
    rows_arrow: int = 0
    rows_python: int = 0
    state_keys: int = 0
    state_bytes: int = 0
    rows_failed: int = 0
    """Rows that could not be computed, and were skipped or made dead letters."""
    state_disk_bytes: int = 0
    """State, and rows that wait for it, beyond the memory budget."""


class Operator(Protocol):
    """A running operator. Built by its `OperatorConfig`, driven by one worker."""

    counters: OperatorCounters

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Take a batch from input `input_index`; yield bounded pieces of output."""
        ...

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Learn that no row before `watermark_us` will come, except late ones.

        The watermark is the least over the operator's inputs and never goes back.
        """
        ...

    def output_watermark(self, watermark_us: int) -> int:
        """Return the watermark that holds for the outputs after `on_watermark(watermark_us)`.

        No result that is emitted later has a time before it. It never goes back either.
        """
        ...

    def on_end(self) -> Iterator[Emit]:
        """Learn that no input will come in this run: flush what is open."""
        ...

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return what changed since checkpoint `since` (`None`: everything), as of `checkpoint`.

        Returns `None` for an operator without state. An operator that cannot tell what
        changed since then returns a full snapshot.
        """
        ...

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Apply snapshots of all workers, oldest first, keeping only rows of `key_groups`.

        Those of one worker begin with its last full one. Called at most once, before any
        input. What `values` say holds for the whole job, whatever the key groups.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """An operator that holds rows back to combine them with later ones.

    It gives them out itself when a watermark needs them. Its worker asks for them before a
    barrier, when it has nothing else to do, when its inputs become idle, and when there are many.
    """

    @property
    def held_rows(self) -> int:
        """How many rows of output are held back."""
        ...

    def pass_on(self) -> Iterator[Emit]:
        """Emit all of them."""
        ...


class OperatorConfig(Protocol):
    """A frozen, picklable description of an operator: what the graph holds."""

    @property
    def consumes(self) -> ChangeMode:
        """What the operator accepts: `APPEND`, `UPSERT` or `CHANGELOG` (both include append)."""
        ...

    @property
    def produces(self) -> ChangeMode:
        """What the operator gives, when it is given what it `consumes`."""
        ...

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The schema of each output port, without hidden columns."""
        ...

    @property
    def timed(self) -> bool:
        """`True` iff the operator decides lateness, so that rows must reach it stamped."""
        ...

    @property
    def broadcast_state(self) -> bool:
        """`True` iff every worker keeps all of the state, whatever the key group."""
        ...

    def build(self) -> Operator:
        """Make the running operator with empty state."""
        ...

    def describe(self) -> str:
        """Return one line for `explain()`."""
        ...


class Stateless:
    """The parts of the contract that an operator without state and time shares."""

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit nothing: nothing waits for a time."""
        yield from ()

    def output_watermark(self, watermark_us: int) -> int:
        """Return the watermark as it is: rows leave with the times they came with."""
        return watermark_us

    def on_end(self) -> Iterator[Emit]:
        """Emit nothing: nothing is open."""
        yield from ()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return `None`: there is no state."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Accept the absence of state."""
        assert not snapshots, "state restored into an operator that has none"
