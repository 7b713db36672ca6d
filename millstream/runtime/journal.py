"""What happened to a job, line by line: structured records beside its state.

    <log>/jobs/<job>/journal.jsonl    {"at_us": …, "job": …, "attempt": 2, "event": "failed", …}

For people and their tools; nothing is ever decided by it.
"""

from __future__ import annotations

import msgspec

from millstream.log import Log


class JournalRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened.

    Parameters
    ----------
    event
        `started`, `restored`, `failed`, `restarting`, `finished`, `stopped`, `cancelled`.
    operator, worker
        Where, as far as known.
    """

    at_us: int
    job: str
    run: str
    attempt: int
    event: str
    message: str
    operator: str | None = None
    worker: int | None = None
    checkpoint: int | None = None


class Journal:
    """The journal of one job.

    Parameters
    ----------
    log, job
        Whose.
    """

    def __init__(self, log: Log, job: str) -> None:
        self._storage = log.storage
        self._directory = f"{log.path}/jobs/{job}"
        self._path = f"{self._directory}/journal.jsonl"

    def write(self, record: JournalRecord) -> None:
        """Append a record; what a crash leaves of it is passed over when it is read."""
        self._storage.make_directory(self._directory)
        file = self._storage.open_append(self._path)
        try:
            file.append([msgspec.json.encode(record) + b"\n"])
        finally:
            file.close()

    def read(self) -> list[JournalRecord]:
        """Return the records, oldest first."""
        try:
            lines = self._storage.read_file(self._path).splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            try:
                records.append(msgspec.json.decode(line, type=JournalRecord))
            except msgspec.DecodeError:
                continue
        return records
