"""The weights of rows in a changelog: +1 for one that comes, -1 for one that is taken back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import values_of
from millstream.operators.operator import WEIGHT_COLUMN

WEIGHT_FIELD = pa.field(WEIGHT_COLUMN, pa.int64())


def weights_of(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return the weight of each row; +1 where none is given."""
    if WEIGHT_COLUMN in batch.schema.names:
        return values_of(batch.column(WEIGHT_COLUMN))
    return np.ones(batch.num_rows, dtype=np.int64)
