"""Backs a log up into a store of objects, a little at a time, and makes a log of it again."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow as pa

from millstream.errors import OptionError
from millstream.log.backup.picture import (
    PartitionPicture,
    Picture,
    SegmentPicture,
    other_files,
    with_picture,
)
from millstream.log.backup.vault import Manifest, SavedFile, Vault, starts_with
from millstream.log.disk_refusal import told
from millstream.log.log import Log
from millstream.storage import Storage
from millstream.storage_objects import open_objects

_RESTORING = ".restoring"
_LOG_FILE = "log.json"
_AGAIN = "and back it up again: earlier backups are as they were"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A backup, in figures.

    Attributes
    ----------
    number
        Of the backup, rising from 1.
    taken_us
        When, microseconds since 1970 UTC.
    topics, files
        How many it has.
    bytes_total, bytes_stored
        How large it is, and how much of that was not in the store before.
    """

    number: int
    taken_us: int
    topics: int
    files: int
    bytes_total: int
    bytes_stored: int


def back_up(log: Log, place: str, *, full: bool = False, keep: int | None = None) -> BackupReport:
    """Store what `log` is now; producers and jobs may go on meanwhile.

    It is a log at one moment: of a transaction all rows are in it or none is visible. Every
    frame's checksums are verified before it is stored. Only what came since the last backup in
    the same place is read and stored.

    Parameters
    ----------
    log
        What is backed up.
    place
        A folder, best on another disk, or a URI that `pyarrow.fs` knows (`s3://bucket/path`).
        One backup at a time may be under way in a place.
    full
        Read and verify everything anew.
    keep
        Remove all but the newest so many backups then.

    Raises
    ------
    LogError
        Where a disk refuses; earlier backups are as they were.
    CorruptSegmentError
        Where the log is damaged; no backup was made then, and earlier ones are as they were.
    OptionError
        Where `place` or `keep` cannot be used.
    """
    if keep is not None and keep < 1:
        message = f"keep is at least 1, the backup that is made; got {keep}"
        raise OptionError(message)
    if not log.storage.exists(f"{log.path}/{_LOG_FILE}"):
        message = f"there is no log in {log.path}; nothing was backed up"
        raise OptionError(message)
    with told(f"backing up the log {log.path} into {place}", _AGAIN):
        return _back_up(log, _absolute(place, log.path), full, keep)


def _back_up(log: Log, place: str, full: bool, keep: int | None) -> BackupReport:
    vault = Vault(open_objects(place, log.storage))
    numbers = vault.numbers()
    known = {}
    if numbers:
        newest = vault.manifest()
        vault.trust(newest)
        if not full:
            known = {file.path: file for file in newest.files}
    # What jobs keep is stored before and after the moment: the state that the moment's manifests
    # name was there at it, and is found by one of the two.
    others = _store_others(log, vault)

    def store(picture: Picture) -> tuple[Picture, dict[str, SavedFile], list[SavedFile]]:
        after = _store_others(log, vault)
        segments = [_store_segment(vault, each, known) for each in _segments(picture)]
        return picture, after, segments

    picture, after, files = with_picture(log, store)
    others |= after
    # As of the moment: its generations are those that the segments are of.
    for name, description in picture.descriptions.items():
        content = pa.py_buffer(description)
        others[name] = SavedFile(name, content.size, "", vault.store(content))
    manifest = Manifest(
        number=(numbers[-1] if numbers else 0) + 1,
        taken_us=log.clock.now_us(),
        log=log.path,
        topics=[each.name for each in picture.topics],
        files=[*others.values(), *files],
    )
    vault.finish(manifest)
    if keep is not None:
        vault.keep(keep)
    return _report(manifest, vault.bytes_stored)


def backups(place: str, storage: Storage) -> list[BackupReport]:
    """Return the backups in a place, oldest first; of each, `bytes_stored` is 0."""
    vault = Vault(open_objects(place, storage))
    return [_report(vault.manifest(number), 0) for number in vault.numbers()]


def restore(
    place: str, directory: str, storage: Storage, number: int | None = None
) -> BackupReport:
    """Make a log of a backup.

    Parameters
    ----------
    place
        Where the backups are.
    directory
        The new log's folder, missing or empty, or one that a restore was ended in.
    number
        Of the backup; by default the newest.

    Raises
    ------
    BackupError
        Where there is no such backup, or it is damaged; `directory` is no log then.
    OptionError
        Where `directory` has something in it.
    LogError
        Where a disk refuses; `directory` is no log then.
    """
    with told(f"restoring the backup in {place} into {directory}", "and restore it again"):
        return _restore(place, directory, storage, number)


def _restore(place: str, directory: str, storage: Storage, number: int | None) -> BackupReport:
    vault = Vault(open_objects(place, storage))
    manifest = vault.manifest(number)
    marker = f"{directory}/{_RESTORING}"
    rest = [name for name in storage.list_directory(directory) if not name.endswith(".tmp")]
    if rest and _RESTORING not in rest:
        message = f"{directory} is not empty; restore into a folder that is new, then look at both"
        raise OptionError(message)
    storage.make_directory(directory)
    storage.write_file(marker, b"")
    # log.json last: without it the folder is no log.
    for file in sorted(manifest.files, key=lambda each: each.path == _LOG_FILE):
        path = f"{directory}/{file.path}"
        storage.make_directory(path.rpartition("/")[0])
        storage.remove(path)
        target = storage.open_append(path)
        try:
            for piece in file.pieces:
                target.append([vault.load(piece)])
            target.sync()
        finally:
            target.close()
    storage.remove(marker)
    return _report(manifest, 0)


def _absolute(place: str, base: str) -> str:
    """Return `place`; a folder may not lie inside the log, which would back itself up."""
    if "://" not in place and os.path.commonpath([base, place.rstrip("/")]) == base:
        message = f"{place} lies inside the log {base}; a backup belongs on another disk"
        raise OptionError(message)
    return place


def _segments(picture: Picture) -> list[SegmentPicture]:
    partitions: list[PartitionPicture] = [*picture.partitions]
    if picture.control is not None:
        partitions.append(picture.control)
    return [each for partition in partitions for each in partition.segments]


def _store_segment(vault: Vault, picture: SegmentPicture, known: dict[str, SavedFile]) -> SavedFile:
    """Store what of a segment the last backup did not have, verified."""
    with told(f"backing up {picture.path}, of {picture.segment.source[0]},", _AGAIN):
        return _store_bytes(vault, picture, known)


def _store_bytes(vault: Vault, picture: SegmentPicture, known: dict[str, SavedFile]) -> SavedFile:
    before = known.get(picture.path)
    size = picture.segment.limit
    if before is not None and (before.mark, before.size) == (picture.mark, size):
        return before
    content = picture.content
    grew = before is not None and before.mark == picture.mark and before.size < size
    if before is not None and grew and starts_with(content, before.pieces):
        picture.segment.verify(before.size)
        pieces = [*before.pieces, *vault.store(content.slice(before.size))]
        return SavedFile(picture.path, size, picture.mark, pieces)
    picture.segment.verify()
    return SavedFile(picture.path, content.size, picture.mark, vault.store(content))


def _store_others(log: Log, vault: Vault) -> dict[str, SavedFile]:
    """Store the files that hold no rows, as they are now."""
    stored = {}
    for name in other_files(log.storage, log.path):
        try:
            content = pa.py_buffer(log.storage.read_file(f"{log.path}/{name}"))
        except FileNotFoundError:
            continue  # removed since it was listed
        stored[name] = SavedFile(name, content.size, "", vault.store(content))
    return stored


def _report(manifest: Manifest, bytes_stored: int) -> BackupReport:
    return BackupReport(
        manifest.number,
        manifest.taken_us,
        len(manifest.topics),
        len(manifest.files),
        sum(file.size for file in manifest.files),
        bytes_stored,
    )
