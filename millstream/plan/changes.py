"""How rows relate to each other over time, from node to node of a plan.

    append    every row is a fact of its own: it holds for ever
    upsert    a row replaces the one before it of its key; a tombstone takes that one away
    changelog rows carry weights: -1 takes back a row that came with +1 before

Facts are a changelog without deletes, so whoever takes changes takes them. Upserts become a
changelog by `LatestRows`, which knows what each row replaces; a changelog whose rows are unique
by a key is upserts by that key already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.errors import PlanError
from millstream.operators.operator import ChangeMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millstream.plan.sources import PlanNode


def passed_mode(*inputs: PlanNode) -> ChangeMode:
    """Return the mode of rows that a filter, map or union made of those of `inputs`."""
    facts = all(each.mode is ChangeMode.APPEND for each in inputs)
    return ChangeMode.APPEND if facts else ChangeMode.CHANGELOG


def require_facts(node: PlanNode, location: str, what: str, remedy: str = "") -> None:
    """Check that the rows of `node` are facts, which `what` (e.g. `"a window"`) takes only.

    Raises
    ------
    PlanError
        When they are changes; names what could convert them.
    """
    if node.mode is ChangeMode.APPEND:
        return
    made = f" (changes since {_short(node)})" if _short(node) else ""
    message = (
        f"{location}: {what} takes rows that are never taken back, and these are changes of a "
        f"table{made}; {remedy}make a row of each change with .to_stream() before, which adds "
        'the column "op"'
    )
    raise PlanError(message)


def is_told_apart(unique: Sequence[str] | None, keys: Sequence[str]) -> bool:
    """Return `True` iff no two rows that hold at one moment have the same `keys`."""
    return unique is not None and set(unique).issubset(keys)


def _short(node: PlanNode) -> str:
    """Return the line at which rows became changes, without its folders."""
    found: PlanNode | None = node
    while found is not None and any(each.mode is not ChangeMode.APPEND for each in found.inputs):
        found = next(each for each in found.inputs if each.mode is not ChangeMode.APPEND)
    return "" if found is None else found.location.rsplit("/", 1)[-1]
