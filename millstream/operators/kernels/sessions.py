"""Loops over the open sessions of keys: put rows into them, merge them, take them out.

The sessions of a key are a chain, the latest first, none of which overlap. A row of a key that
comes in order touches the first one only::

    head[key] ─▶ [30, 40) ─▶ [0, 21) ─▶ none            next[session] is the one before in time
"""

from __future__ import annotations

from typing import Any

from millstream.jit import kernel

NONE = -1

META_USED = 0
META_FREE = 1
META_ADDED = 2
META_MERGED = 3


@kernel
def put_rows(
    keys: Any,
    begins: Any,
    ends: Any,
    first: int,
    head: Any,
    starts: Any,
    stops: Any,
    before: Any,
    owner: Any,
    into: Any,
    free: Any,
    meta: Any,
    sessions: Any,
    added: Any,
    merged: Any,
) -> Any:
    """Write the session of each row; return the row that needs more room for a new one.

    Parameters
    ----------
    keys, begins, ends
        The slot of each row's key, and the session [begin, end) that it is; int64, shape (n,).
    first
        The first row to do.
    head
        The latest session of each key, or `NONE`; int64.
    starts, stops, before, owner
        Of each session: its bounds, the one before it of its key or `NONE`, and its key's slot.
    into
        Of each session that was merged into another one: which; else `NONE`.
    free
        A stack of sessions that are not used.
    meta
        How many sessions were ever used, are free, are in `added` and in `merged`.
    sessions
        Output, shape (n,); one that was merged later is still named.
    added, merged
        Output: sessions that are new, and those that were merged into others.
    """
    for row in range(first, len(keys)):
        key, begin, end = keys[row], begins[row], ends[row]
        behind = NONE
        found = head[key]
        while found != NONE and starts[found] >= end:
            behind = found
            found = before[found]
        if found == NONE or stops[found] <= begin:
            if meta[META_FREE] > 0:
                meta[META_FREE] -= 1
                new = free[meta[META_FREE]]
            elif meta[META_USED] < len(starts):
                new = meta[META_USED]
                meta[META_USED] += 1
            else:
                return row
            starts[new] = begin
            stops[new] = end
            before[new] = found
            owner[new] = key
            into[new] = NONE
            if behind == NONE:
                head[key] = new
            else:
                before[behind] = new
            added[meta[META_ADDED]] = new
            meta[META_ADDED] += 1
            sessions[row] = new
            continue
        starts[found] = min(starts[found], begin)
        stops[found] = max(stops[found], end)
        other = before[found]
        while other != NONE and stops[other] > begin:
            starts[found] = min(starts[found], starts[other])
            before[found] = before[other]
            into[other] = found
            merged[meta[META_MERGED]] = other
            meta[META_MERGED] += 1
            other = before[found]
        sessions[row] = found
    return len(keys)


@kernel
def follow(sessions: Any, into: Any) -> None:
    """Put in the place of each session the one that it is part of now."""
    for row in range(len(sessions)):
        session = sessions[row]
        while into[session] != NONE:
            session = into[session]
        sessions[row] = session


@kernel
def unlink(sessions: Any, head: Any, before: Any, owner: Any, emptied: Any) -> int:
    """Take sessions out of their keys' chains; write keys without any, and return how many."""
    count = 0
    for index in range(len(sessions)):
        session = sessions[index]
        key = owner[session]
        if head[key] == session:
            head[key] = before[session]
            if head[key] == NONE:
                emptied[count] = key
                count += 1
            continue
        behind = head[key]
        while before[behind] != session:
            behind = before[behind]
        before[behind] = before[session]
    return count


@kernel
def list_sessions(keys: Any, head: Any, before: Any, sessions: Any) -> int:
    """Write the sessions of `keys` until `sessions` is full; return how many there are."""
    count = 0
    for index in range(len(keys)):
        session = head[keys[index]]
        while session != NONE:
            if count < len(sessions):
                sessions[count] = session
            count += 1
            session = before[session]
    return count
