"""State at rest: snapshots as Arrow IPC files under names that are never used twice.

<log>/jobs/<job>/state/<epoch>-<checkpoint>-<operator>-<worker>.arrow
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from crc32c import crc32c

from millstream.errors import CheckpointError
from millstream.operators.operator import StateSnapshot
from millstream.runtime.manifest import StateFile
from millstream.storage import AppendFile, Bytes, Storage

_EPOCH_DIGITS = 8
_WHOLE_BYTES_MAX = 32 * 1024 * 1024
"""A larger snapshot is written piece by piece."""
_PIECES = "millstream.pieces"
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
    rows, written, size, crc = _in_one(snapshot), None, 0, 0
    if rows is not None:
        written = path
        if rows.nbytes > _WHOLE_BYTES_MAX:
            size, crc = _stream(storage, f"{root}/{path}", rows)
        else:
            sink = pa.BufferOutputStream()
            _write(sink, rows)
            content = sink.getvalue()
            storage.write_file(f"{root}/{path}", content)
            size, crc = content.size, crc32c(content)
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
    snapshots = []
    for each in files:
        tables: list[pa.Table | None] = [None]
        if each.path is not None:
            rows = _read_rows(storage, f"{root}/{each.path}", operator, each)
            tables = list(_pieces(rows))
        snapshots += [
            StateSnapshot(each.full and index == 0, table, dict(each.values), each.version)
            for index, table in enumerate(tables)
        ]
    return snapshots


def verify_file(storage: Storage, root: str, operator: str, file: StateFile) -> None:
    """Check that a file is there and whole; raises `CheckpointError`."""
    if file.path is not None:
        _verified(storage, f"{root}/{file.path}", operator, file)


class _HashedFile:
    """Passes what is written to it on to a file, with its checksum."""

    closed = False

    def __init__(self, file: AppendFile) -> None:
        self._file = file
        self.size_bytes = 0
        self.crc = 0

    def write(self, content: Bytes) -> int:
        """Append a piece."""
        self._file.append([content])
        self.size_bytes += len(content)
        self.crc = crc32c(content, self.crc)
        return len(content)

    def flush(self) -> None:
        """Do nothing: the file is synced when it is whole."""


def _stream(storage: Storage, path: str, rows: pa.Table) -> tuple[int, int]:
    """Write a file piece by piece, and return its size and checksum.

    Rows that lie on disk are not in memory together. A file that is not whole is named nowhere.
    """
    storage.remove(path)
    file = storage.open_append(path)
    try:
        hashed = _HashedFile(file)
        _write(pa.PythonFile(hashed, mode="w"), rows)
        file.sync()
    finally:
        file.close()
    return hashed.size_bytes, hashed.crc


def _write(sink: pa.NativeFile, rows: pa.Table) -> None:
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)


def _in_one(snapshot: StateSnapshot) -> pa.Table | None:
    """Return all rows of a snapshot, which say themselves where its further changes begin."""
    rows = snapshot.rows
    if rows is None or (rows.num_rows == 0 and not snapshot.further):
        return None
    if snapshot.further:
        counts = [each.num_rows for each in (rows, *snapshot.further)]
        text = ",".join(map(str, counts))
        joined = pa.concat_tables([rows, *snapshot.further])
        rows = joined.replace_schema_metadata({**(rows.schema.metadata or {}), _PIECES: text})
    # A file has one dictionary a column, whatever its batches had.
    return rows.unify_dictionaries()


def _pieces(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield what `_in_one` put together."""
    text = (rows.schema.metadata or {}).get(_PIECES.encode())
    begin = 0
    for count in [rows.num_rows] if text is None else map(int, text.split(b",")):
        yield rows.slice(begin, count)
        begin += count


def _verified(storage: Storage, path: str, operator: str, file: StateFile) -> pa.Buffer:
    try:
        size_bytes = storage.file_size(path)
    except FileNotFoundError as error:
        raise CheckpointError(_damage(path, operator, file, "it is missing")) from error
    if size_bytes != file.size_bytes:
        reason = f"it has {size_bytes} bytes of {file.size_bytes}"
        raise CheckpointError(_damage(path, operator, file, reason))
    # Mapped: of a state that is larger than memory only what is looked at need be there.
    content = storage.map(path)
    if crc32c(content) != file.crc:
        raise CheckpointError(_damage(path, operator, file, "its checksum does not hold"))
    return content


def _read_rows(storage: Storage, path: str, operator: str, file: StateFile) -> pa.Table:
    table = pa.ipc.open_file(_verified(storage, path, operator, file)).read_all()
    table.validate(full=True)
    return table


def _damage(path: str, operator: str, file: StateFile, reason: str) -> str:
    return (
        f"the state of operator {operator!r} in checkpoint {file.checkpoint} cannot be restored: "
        f"{path}: {reason}; restore the file from a copy, or start over with --fresh"
    )
