"""Dead letters fed back: the rows that were read, once more, at the ends of their topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from millstream.errors import LogError, UnknownTopicError, nearest
from millstream.log import Log
from millstream.operators.poison import DEAD_LETTERS

SUFFIX = ".dlq"
_BATCH_ROWS = 4_096


@dataclass
class Replayed:
    """What a replay came to.

    Parameters
    ----------
    rows
        How many were appended again, by topic.
    left
        How many were not, by the reason.
    """

    rows: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)


def dead_letter_topics(log: Log) -> list[str]:
    """Return the names of the dead-letter topics of a log."""
    return [
        name
        for name in log.topic_names()
        if name.endswith(SUFFIX) and log.topic(name).schema.equals(DEAD_LETTERS)
    ]


def checked_topic(log: Log, job: str) -> str:
    """Return the dead-letter topic of a job.

    Raises
    ------
    UnknownTopicError
        When it has none; lists the jobs that have.
    """
    known = [each.removesuffix(SUFFIX) for each in dead_letter_topics(log)]
    name = job.removesuffix(SUFFIX)
    if name not in known:
        message = f"job {name!r} has no dead letters in {log.path}{nearest(name, known)}"
        raise UnknownTopicError(message)
    return f"{name}{SUFFIX}"


def replay(log: Log, job: str) -> Replayed:
    """Append the rows again that a job could not compute, and that were not replayed yet.

    What was replayed is committed in one transaction with the rows: whatever happens, each goes
    back once. All readers of the topic see the rows again.

    Raises
    ------
    UnknownTopicError
        When the job has no dead letters.
    """
    topic, done = checked_topic(log, job), Replayed()
    group = f"{topic}.replay"
    with log.consumer(topic, group=group, auto_commit=False) as consumer:
        while (letters := consumer.poll(0, _BATCH_ROWS)) is not None:
            with log.transaction(group) as transaction:
                for name, rows in _rows_again(log, letters.to_pylist(), done).items():
                    transaction.append(name, rows)
                    done.rows[name] += rows.num_rows
                transaction.commit_offsets(consumer)
    return done


def _rows_again(log: Log, letters: Sequence[dict[str, Any]], done: Replayed) -> dict[str, pa.Table]:
    found: dict[str, list[pa.RecordBatch]] = {}
    for each in letters:
        row = _row(log, each)
        if isinstance(row, str):
            done.left[row] += 1
        else:
            found.setdefault(each["topic"], []).append(row)
    return {name: pa.Table.from_batches(rows) for name, rows in found.items()}


def _row(log: Log, letter: dict[str, Any]) -> pa.RecordBatch | str:
    """Return the row that a letter is about, or why it cannot be had."""
    name = letter["topic"]
    if name is None:
        return "made of other rows, or read at an unknown place"
    if name not in log.topic_names():
        return f"topic {name} is gone"
    topic = log.topic(name)
    if topic.config.table:
        return f"{name} is a table: a newer row of the key may be there"
    columns = [*topic.schema.names, "_offset"]
    try:
        reader = topic.reader(
            letter["partition"],
            generation=letter["generation"],
            offset=letter["offset"],
            columns=columns,
        )
        row = reader.read(1)
    except LogError:
        row = None
    if row is None or row.column("_offset")[0].as_py() != letter["offset"]:
        return f"not in {name} any more"
    return row.select(topic.schema.names)
