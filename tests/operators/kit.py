"""What tests of operators share: driving one, and reading what it gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import pyarrow as pa

from millstream.operators.operator import OUTPUT_ROWS_MAX, Emit, Operator, StateSnapshot

TIME = pa.timestamp("us", tz="UTC")
ALL_GROUPS = range(4096)


class Driven:
    """An operator and everything it emitted, by port."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.batches: dict[int, list[pa.RecordBatch]] = {}

    def take(self, emits: Iterable[Emit]) -> list[dict[str, object]]:
        """Consume pieces; return the rows of port 0 among them."""
        rows: list[dict[str, object]] = []
        for each in emits:
            assert 0 < each.batch.num_rows <= OUTPUT_ROWS_MAX
            each.batch.validate(full=True)
            self.batches.setdefault(each.port, []).append(each.batch)
            if each.port == 0:
                rows += each.batch.to_pylist()
        return rows

    def batch(self, batch: pa.RecordBatch, input_index: int = 0) -> list[dict[str, object]]:
        return self.take(self.operator.on_batch(input_index, batch))

    def watermark(self, watermark_us: int) -> list[dict[str, object]]:
        return self.take(self.operator.on_watermark(watermark_us))

    def end(self) -> list[dict[str, object]]:
        return self.take(self.operator.on_end())

    def rows(self, port: int = 0) -> list[dict[str, object]]:
        return [row for batch in self.batches.get(port, []) for row in batch.to_pylist()]

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot:
        snapshot = self.operator.snapshot(since, checkpoint)
        assert snapshot is not None
        return stored(snapshot)


def stored(snapshot: StateSnapshot) -> StateSnapshot:
    """A snapshot as it comes back from disk."""
    rows = snapshot.rows
    if rows is not None:
        rows.validate(full=True)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        rows = pa.ipc.open_file(sink.getvalue()).read_all() if rows.num_rows else None
    return StateSnapshot(snapshot.full, rows, dict(snapshot.values), snapshot.version)


def split_at(batch: pa.RecordBatch, cuts: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """The batch cut at row numbers, empty pieces included."""
    edges = [0, *sorted(min(cut, batch.num_rows) for cut in cuts), batch.num_rows]
    for begin, end in pairwise(edges):
        yield batch.slice(begin, end - begin)
