"""Splits a batch by the worker that owns each row's key: the step before an exchange."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from millstream.log.splitting import split_by_key


def split_by_worker(
    batch: pa.RecordBatch, key_columns: Sequence[str], parallelism: int
) -> list[pa.RecordBatch]:
    """Return the rows for each worker, in their order.

    A row goes to worker ⌊group·P/4096⌋ of its key's group. Rows without key columns are one
    group, which the first worker owns.

    Parameters
    ----------
    batch
        Rows, hidden columns included.
    key_columns
        Names of the columns that make the key; may be empty.
    parallelism
        Number of workers P.

    Returns
    -------
    list of pyarrow.RecordBatch
        P batches, some of them empty; a batch that goes to one worker whole is not copied.
    """
    if not key_columns or parallelism == 1:
        return [batch] + [batch.slice(0, 0)] * (parallelism - 1)
    return [each.batch for each in split_by_key(batch, key_columns, parallelism)]
