"""How a run is to be made, as the fluent surface and the command line hand it to a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BATCH_ROWS = 131_072
"""The most rows that a source reads at once, where nothing else is said: a frame as producers make
them. What a batch costs however few its rows is a third of all with half as many."""
CHANNEL_BYTES = 32 * 1024 * 1024
"""The most bytes that wait in one channel between two workers."""
SEND_ROWS = 8_192
"""So many rows a busy worker gathers before it sends them to others."""
GATHER_ROWS = 131_072
"""So many rows a busy worker gathers behind a filter before it works on them. Where a fifth passed,
a table join and a window behind it then took a fifth less of a worker's time in all."""

HELD_ROWS = 65_536
"""So many accumulators are held back: where there are more, hardly a row combines with another."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one run.

    Parameters
    ----------
    parallelism
        How many workers share the rows.
    follows_partitions
        Whether there are as many workers as the largest topic that is read as a stream has
        partitions, also when it gets others; `parallelism` is what that was when the job was made.
    until
        `"end"`: read to the ends as they are when the run starts, flush, commit, finish.
    fresh
        Start over instead of going on from the newest checkpoint, unless `run` did already.
    run
        Names the run, so that its later attempts do not start over again.
    checkpoint_interval_us
        From the end of one checkpoint to the start of the next.
    batch_rows, batch_bytes
        The most that a source reads at once.
    channel_bytes
        A channel to another worker takes no more while this much waits in it.
    send_rows
        A busy worker gathers so many rows before it sends them to others, but not for long.
    gather_rows
        So it does behind a filter, before the next operator takes them.
    held_rows
        The most rows of accumulators that wait for more to combine with before they cross to other
        workers; 0: each batch's cross at once.
    memory_budget_bytes
        What the state of a worker's operators may take of memory, before it goes to disk.
    spill_directory
        Where it goes then; `None`: where the machine has temporary files.
    """

    parallelism: int = 1
    until: Literal["end"] | None = None
    fresh: bool = False
    run: str = ""
    checkpoint_interval_us: int = 1_000_000
    batch_rows: int = BATCH_ROWS
    batch_bytes: int = 8 * 1024 * 1024
    channel_bytes: int = CHANNEL_BYTES
    send_rows: int = SEND_ROWS
    gather_rows: int = GATHER_ROWS
    held_rows: int = HELD_ROWS
    follows_partitions: bool = False
    memory_budget_bytes: int | None = None
    spill_directory: str | None = None
