"""Rows that an operator cannot compute: found in the batch that failed, and told, passed or kept.

    batch ─▶ compute ─▶ raises ─▶ suspects, or halves of halves ─▶ the rows that fail alone
                                                              │ fail: the first one is told
             the others, computed again ◀─────────────────────┤ skip: counted
                                                              │ dlq:  port 1, for a topic

Nothing is done for it before a batch fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from millstream.errors import RowError
from millstream.operators.expression import TypedExpression
from millstream.operators.functions.function import taken
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    POSITION_COLUMN,
    Emit,
    OperatorCounters,
)
from millstream.operators.position import place_of
from millstream.operators.suspects import suspects

OnError: TypeAlias = Literal["fail", "skip", "dlq"]
Compute: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch | None]

DEAD_LETTER_PORT = 1
DEAD_LETTERS = pa.schema(
    {
        "job": pa.string(),
        "operator": pa.string(),
        "location": pa.string(),
        "topic": pa.string(),
        "generation": pa.int64(),
        "partition": pa.int64(),
        "offset": pa.int64(),
        "error": pa.string(),
        "row": pa.string(),
    }
)
"""Rows of a dead-letter topic. `row` is JSON of what the operator was given; the place is that of
the row that was read, null for a row made of others, as by an aggregate."""

ROW_CHARS_SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What becomes of a row that cannot be computed.

    Parameters
    ----------
    on_error
        `"fail"`: the job fails. `"skip"`: it is counted. `"dlq"`: it goes out by port 1, counted.
    job, operator, location
        Whose it is, for dead letters.
    topics
        Of the job's stream sources, in their order.
    """

    on_error: OnError = "fail"
    job: str = ""
    operator: str = ""
    location: str = ""
    topics: tuple[str, ...] = ()


FAIL = ErrorPolicy()
"""What is done where nothing else is said."""


def with_poison(
    rows: pa.RecordBatch,
    compute: Compute,
    policy: ErrorPolicy,
    counters: OperatorCounters,
    expressions: Sequence[TypedExpression],
) -> Iterator[Emit]:
    """Emit what `compute` makes of `rows`, without those that it fails on, as the policy says.

    Parameters
    ----------
    compute
        Of any part of `rows`; counts in `counters`, which is set back where it fails.
    expressions
        What it computes.

    Raises
    ------
    RowError
        With `"fail"`, of the first row that fails.
    """
    before = replace(counters)
    try:
        result = compute(rows)
    except Exception as error:
        _set(counters, before)
        only_first = policy.on_error == "fail"
        failures = _suspected(rows, compute, expressions, only_first)
        if failures is None:
            failures = list(_failures(rows, 0, compute, error, only_first))
        if not failures:
            raise  # a function of whole batches may fail on rows none of which fails alone
        if policy.on_error != "fail":
            _set(counters, before)
        yield from refused(rows, failures, policy, counters)
        kept = np.ones(rows.num_rows, dtype=bool)
        kept[[index for index, _ in failures]] = False
        counters.rows_in += len(failures)
        result = compute(taken(rows, np.flatnonzero(kept))) if kept.any() else None
    if result is not None:
        counters.rows_out += result.num_rows
        yield Emit(0, result)


def refused(
    rows: pa.RecordBatch,
    failures: Sequence[tuple[int, Exception]],
    policy: ErrorPolicy,
    counters: OperatorCounters,
) -> Iterator[Emit]:
    """Do with rows that failed, at least one, as the policy says; emit their dead letters.

    Raises
    ------
    RowError
        With `"fail"`, of the first one.
    """
    if policy.on_error == "fail":
        raise row_error(rows, *failures[0]) from failures[0][1]
    counters.rows_failed += len(failures)
    if policy.on_error == "dlq":
        yield Emit(DEAD_LETTER_PORT, letters_of(rows, failures, policy))


def _set(counters: OperatorCounters, values: OperatorCounters) -> None:
    for name in OperatorCounters.__dataclass_fields__:
        setattr(counters, name, getattr(values, name))


def _suspected(
    rows: pa.RecordBatch,
    compute: Compute,
    expressions: Sequence[TypedExpression],
    only_first: bool,
) -> list[tuple[int, Exception]] | None:
    """Return the failing rows among the suspects; `None` where others fail as well, or none."""
    suspected = suspects(expressions, rows)
    if suspected is None:
        return None
    try:
        if not suspected.all():
            compute(taken(rows, np.flatnonzero(~suspected)))
    except Exception:
        return None
    found: list[tuple[int, Exception]] = []
    for index in np.flatnonzero(suspected).tolist():
        try:
            compute(rows.slice(index, 1))
        except Exception as error:
            found.append((index, error))
            if only_first:
                break
    return found or None


def _failures(
    rows: pa.RecordBatch, begin: int, compute: Compute, error: Exception, only_first: bool
) -> Iterator[tuple[int, Exception]]:
    """Give the index and error of each row, or of the first, on which `compute` fails."""
    if rows.num_rows == 1:
        yield begin, error
        return
    middle = rows.num_rows // 2
    for part, at in ((rows.slice(0, middle), begin), (rows.slice(middle), begin + middle)):
        try:
            compute(part)
        except Exception as found:
            yield from _failures(part, at, compute, found, only_first)
            if only_first:
                return


def reason_of(error: BaseException) -> str:
    """Return what an exception says; its type too, where it is none of the package's."""
    text = str(error)
    ours = type(error).__module__.startswith("millstream.")
    return text if ours else f"{type(error).__name__}: {text}"


def row_text(row: dict[str, Any]) -> str:
    """Return the user's columns of a row as JSON."""
    shown = {name: value for name, value in row.items() if name not in HIDDEN_COLUMNS}
    return json.dumps(shown, default=str, ensure_ascii=False)


def shown_row(row: dict[str, Any]) -> str:
    """Return a row for a message, cut where it is long."""
    shown = row_text(row)
    return f"{shown[:ROW_CHARS_SHOWN]}…" if len(shown) > ROW_CHARS_SHOWN else shown


def letter(row: dict[str, Any], reason: str, policy: ErrorPolicy) -> dict[str, object]:
    """Return a dead letter of a row; hidden columns say where it was read."""
    made: dict[str, object] = {
        "job": policy.job,
        "operator": policy.operator,
        "location": policy.location,
        "error": reason,
        "row": row_text(row),
    }
    place = place_of(row.get(POSITION_COLUMN))
    if place is not None:
        made |= {
            "topic": policy.topics[place.source],
            "generation": place.generation,
            "partition": place.partition,
            "offset": place.offset,
        }
    return made


def dead_letters(letters: Sequence[dict[str, object]]) -> pa.RecordBatch:
    """Return dead letters as rows of their topic."""
    return pa.RecordBatch.from_pylist(list(letters), DEAD_LETTERS)


def row_error(rows: pa.RecordBatch, index: int, error: Exception) -> RowError:
    """Return the error of row `index`, which shows it."""
    (row,) = _as_dicts(rows.slice(index, 1))
    message = f"{reason_of(error)}; the row: {shown_row(row)}"
    return RowError(message, position=row.get(POSITION_COLUMN))


def letters_of(
    rows: pa.RecordBatch, failures: Sequence[tuple[int, Exception]], policy: ErrorPolicy
) -> pa.RecordBatch:
    """Return the dead letters of rows, by their index."""
    failed = _as_dicts(taken(rows, np.array([index for index, _ in failures])))
    return dead_letters(
        [
            letter(row, reason_of(error), policy)
            for row, (_, error) in zip(failed, failures, strict=True)
        ]
    )


def _as_dicts(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as Python has them; times that Python does not have, as numbers."""
    try:
        return rows.to_pylist()
    except (ValueError, OverflowError):
        columns = [
            each.view(pa.int64()) if pa.types.is_timestamp(each.type) else each
            for each in rows.columns
        ]
        return pa.RecordBatch.from_arrays(columns, rows.schema.names).to_pylist()
