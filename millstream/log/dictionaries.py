"""Takes out of dictionaries what is not used: each frame holds its own, whole."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.metadata import dictionary_count


def compacted(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch` without the dictionary values that it does not use, where these are many.

    Of a few rows of many, most of a large dictionary would be of no use. Those inside of nested
    columns stay as they are.
    """
    for index, column in enumerate(batch.columns):
        if isinstance(column, pa.DictionaryArray) and len(column.dictionary) > len(column):
            batch = batch.set_column(index, batch.schema.field(index), _used_only(column))
    return batch


def without_unused_values(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch` without any dictionary value that no row of it has, nested ones included.

    What was removed from a topic must not stay in a dictionary.
    """
    columns = [_rebuilt(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _rebuilt(array: Any) -> Any:
    """Return `array`, its dictionaries and those of its children with used values alone."""
    data_type = array.type
    if isinstance(array, pa.DictionaryArray):
        return _used_only(array)
    if not dictionary_count(data_type):
        return array
    # What lies under nulls, or before the first row of a slice, is no row's.
    array = array.take(pa.array(range(len(array)), pa.int64()))
    if isinstance(array, pa.StructArray):
        children = [array.field(index) for index in range(data_type.num_fields)]
    else:
        children = [array.values]
    own = 1 if isinstance(array, pa.StructArray | pa.FixedSizeListArray) else 2
    return pa.Array.from_buffers(
        data_type,
        len(array),
        array.buffers()[:own],
        null_count=array.null_count,
        children=[_rebuilt(child) for child in children],
    )


def _used_only(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return `column` with the used values of its dictionary alone, in their order."""
    values = column.dictionary
    used = pc.unique(column.indices).drop_null().sort()
    used = used.filter(pc.less(used, len(values)))  # under a null there may be any index
    indices = pc.index_in(column.indices, value_set=used).cast(column.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, values.take(used), ordered=column.type.ordered)
