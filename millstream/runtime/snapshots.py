"""State at rest: snapshots as Arrow IPC files under names that are never used twice.

<log>/jobs/<job>/state/<epoch>-<checkpoint>-<operator>-<worker>.arrow
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from crc32c import crc32c

from millstream.errors import CheckpointError
from millstream.operators.operator import StateSnapshot
from millstream.runtime.manifest import StateFile
from millstream.storage import Storage

_EPOCH_DIGITS = 8
_OPERATOR_CHARACTERS = 120
"""A longer name (of a window by many columns) is cut: file systems take 255 bytes."""


def state_directory(job: str) -> str:
    """Return the folder of a job's state, relative to the log."""
    return f"jobs/{job}/state"


def state_path(job: str, epoch: int, checkpoint: int, operator: str, worker: int) -> str:
    """Return the file of one worker's part of an operator's state, relative to the log."""
    if len(operator) > _OPERATOR_CHARACTERS:
        checksum = crc32c(operator.encode())
        operator = f"{operator[:_OPERATOR_CHARACTERS]}~{checksum:08x}"
    name = f"{epoch:0{_EPOCH_DIGITS}d}-{checkpoint:08d}-{operator}-{worker}.arrow"
    return f"{state_directory(job)}/{name}"


def epoch_of(name: str) -> int | None:
    """Return the epoch of the attempt that wrote the state file `name`; `None`: it is none."""
    digits = name.partition("-")[0]
    return int(digits) if len(digits) >= _EPOCH_DIGITS and digits.isdecimal() else None


def write_snapshot(
    storage: Storage, root: str, path: str, worker: int, checkpoint: int, snapshot: StateSnapshot
) -> StateFile:
    """Make a snapshot durable; one without rows needs no file.

    Parameters
    ----------
    root
        The log's folder, to which `path` is relative.
    """
    rows = snapshot.rows
    if rows is None or rows.num_rows == 0:
        written, size, crc = None, 0, 0
    else:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        content = sink.getvalue()
        storage.write_file(f"{root}/{path}", content)
        written, size, crc = path, content.size, crc32c(content)
    return StateFile(
        worker, checkpoint, written, size, crc, snapshot.full, snapshot.version, snapshot.values
    )


def read_snapshots(
    storage: Storage, root: str, operator: str, files: Sequence[StateFile]
) -> list[StateSnapshot]:
    """Return the snapshots in `files`, in their order, verified before anything parses them.

    Raises
    ------
    CheckpointError
        When a file is missing or damaged; names it and its checkpoint.
    """
    return [
        StateSnapshot(
            each.full,
            None
            if each.path is None
            else _read_rows(storage, f"{root}/{each.path}", operator, each),
            dict(each.values),
            each.version,
        )
        for each in files
    ]


def verify_file(storage: Storage, root: str, operator: str, file: StateFile) -> None:
    """Check that a file is there and whole; raises `CheckpointError`."""
    if file.path is not None:
        _verified(storage, f"{root}/{file.path}", operator, file)


def _verified(storage: Storage, path: str, operator: str, file: StateFile) -> bytes:
    try:
        content = storage.read_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(_damage(path, operator, file, "it is missing")) from error
    if len(content) != file.size_bytes:
        reason = f"it has {len(content)} bytes of {file.size_bytes}"
        raise CheckpointError(_damage(path, operator, file, reason))
    if crc32c(content) != file.crc:
        raise CheckpointError(_damage(path, operator, file, "its checksum does not hold"))
    return content


def _read_rows(storage: Storage, path: str, operator: str, file: StateFile) -> pa.Table:
    content = _verified(storage, path, operator, file)
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    table.validate(full=True)
    return table


def _damage(path: str, operator: str, file: StateFile, reason: str) -> str:
    return (
        f"the state of operator {operator!r} in checkpoint {file.checkpoint} cannot be restored: "
        f"{path}: {reason}; restore the file from a copy, or start over with --fresh"
    )
