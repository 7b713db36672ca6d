"""Splits a batch by the worker that owns each row's key: the step before an exchange."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from millstream.log.key_hash import KEY_GROUPS, key_groups, split_rows


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
    groups = key_groups([batch.column(name) for name in key_columns])
    destinations = groups.astype(np.int64) * parallelism // KEY_GROUPS
    rows = split_rows(destinations, parallelism)
    return [batch if len(each) == batch.num_rows else batch.take(pa.array(each)) for each in rows]
