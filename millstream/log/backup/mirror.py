"""A second log that follows a first one, file by file, and can take its place."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec
import pyarrow as pa

from millstream.errors import MirrorError, OptionError
from millstream.log.appender import LOCK_NAME as APPEND_LOCK
from millstream.log.backup.picture import (
    PartitionPicture,
    Picture,
    SegmentPicture,
    other_files,
    with_picture,
)
from millstream.log.checked_json import decode_checked, encode_checked
from millstream.log.control_file import ControlFile
from millstream.log.disk_refusal import told
from millstream.log.group_commit import LOCK_NAME as SYNC_LOCK
from millstream.log.index import index_file_name
from millstream.log.log import MIRROR_FILE, Log
from millstream.log.segment import segment_bases, segment_file_name
from millstream.log.sequences import sequences_file_name
from millstream.log.topic_config import TopicConfig
from millstream.storage import Storage

_LOCK = "mirror.lock"
_LOCK_TIMEOUT_US = 1_000_000


class _MirrorFile(msgspec.Struct):
    """`mirror.json`: of what the log is a mirror; who writes to it is told so."""

    source: str
    since_us: int


@dataclass(slots=True)
class MirrorStep:
    """What one round brought: bytes of segments that were copied, and segments removed."""

    bytes_copied: int = 0
    segments_removed: int = 0


class Mirror:
    """Makes the log in `directory` what `source` is, round by round.

    Readers of the mirror see the source as it was at a moment: the control topic, which says
    what is committed, follows last. It takes no writers until it is promoted.

    Parameters
    ----------
    source
        The log that is followed.
    directory
        The mirror's folder: missing, empty, or this source's mirror from before.
    storage
        Of the mirror.

    Raises
    ------
    OptionError
        Where the folder holds something else.
    LockTimeoutError
        Where another process mirrors into it; names the process.
    """

    def __init__(self, source: Log, directory: str, storage: Storage) -> None:
        self._source = source
        self._directory = directory
        self._storage = storage
        self._held = ExitStack()
        self._checked: set[str] = set()
        self._known = _known_source(storage, directory)
        names = storage.list_directory(directory)
        if self._known is None and not all(name.endswith((_LOCK, ".tmp")) for name in names):
            message = f"{directory} is not empty and no mirror; mirror into a new folder"
            raise OptionError(message)
        if self._known not in {None, source.path}:
            message = f"{directory} is a mirror of {self._known}, not of {source.path}"
            raise OptionError(message)

    def __enter__(self) -> Self:
        with self._told(), ExitStack() as held:
            self._storage.make_directory(self._directory)
            lock = self._storage.lock(f"{self._directory}/{_LOCK}", _LOCK_TIMEOUT_US)
            held.enter_context(lock)
            if self._known is None:
                content = _MirrorFile(self._source.path, self._source.clock.now_us())
                self._write(MIRROR_FILE, encode_checked(content))
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()

    def step(self) -> MirrorStep:
        """Bring the mirror up to what the source is now."""
        done = MirrorStep()
        with self._told():
            with_picture(self._source, lambda picture: self._copy(picture, done))
        return done

    def _told(self) -> AbstractContextManager[None]:
        """Say what it was about, where a disk refuses something inside."""
        return told(f"mirroring {self._source.path} into {self._directory}", "and mirror it again")

    def _copy(self, picture: Picture, done: MirrorStep) -> None:
        self._copy_others()
        for partition in picture.partitions:
            self._copy_partition(partition, done)
        if picture.control is not None:
            self._copy_partition(picture.control, done)
        # At last: who reads a generation to its seam finds all its rows.
        for name, description in picture.descriptions.items():
            self._write_changed(name, description)
        self._remove_others(picture.topics)

    def _copy_partition(self, picture: PartitionPicture, done: MirrorStep) -> None:
        directory = f"{self._directory}/{picture.directory}"
        self._storage.make_directory(directory)
        with (
            self._storage.lock(f"{directory}/{APPEND_LOCK}"),
            self._storage.lock(f"{directory}/{SYNC_LOCK}"),
        ):
            for segment in picture.segments:
                done.bytes_copied += self._copy_segment(segment)
            control = ControlFile(self._storage, directory)
            if not control.is_of_this_boot() or control.durable() != picture.end:
                control.publish_written(picture.end)
                control.publish_durable(picture.end)
                control.stamp_boot()
            kept = {each.segment.head.base_offset for each in picture.segments}
            for base in segment_bases(self._storage, directory):
                if base not in kept:
                    self._storage.remove(f"{directory}/{segment_file_name(base)}")
                    self._storage.remove(f"{directory}/{index_file_name(base)}")
                    self._storage.remove(f"{directory}/{sequences_file_name(base)}")
                    done.segments_removed += 1

    def _copy_segment(self, picture: SegmentPicture) -> int:
        """Copy what the mirror lacks of a segment; return how many bytes that was."""
        path = f"{self._directory}/{picture.path}"
        content = picture.content
        size = self._size_of_copy(path, picture)
        if size == content.size:
            return 0
        picture.segment.verify(size or 0)
        if size is None:
            # Readers may have the old file mapped; they keep it.
            self._storage.write_file(path, content)
            self._checked.add(f"{path} {picture.mark}")
            return int(content.size)
        file = self._storage.open_append(path)
        try:
            file.append([content.slice(size)])
            file.sync()
        finally:
            file.close()
        return int(content.size - size)

    def _size_of_copy(self, path: str, picture: SegmentPicture) -> int | None:
        """Return how much of a segment the mirror has; `None`: another file, or none."""
        if not self._storage.exists(path):
            return None
        file = self._storage.open_append(path)
        size = file.size_bytes
        file.close()
        if size > picture.content.size:
            return None
        copy: pa.Buffer = self._storage.map(path, size)
        head = picture.segment.head.size_bytes
        name = f"{path} {picture.mark}"
        compared = size if name not in self._checked else min(size, head)
        if size < head or not copy.slice(0, compared).equals(picture.content.slice(0, compared)):
            return None
        self._checked.add(name)
        return size

    def _copy_others(self) -> None:
        source = self._source
        for name in other_files(source.storage, source.path):
            with suppress(FileNotFoundError):  # removed since it was listed
                content = source.storage.read_file(f"{source.path}/{name}")
                if not name.endswith("/topic.json"):
                    self._write_changed(name, content)

    def _remove_others(self, topics: list[TopicConfig]) -> None:
        """Remove what the source has no more: topics, generations and groups, states of jobs."""
        kept = set(other_files(self._source.storage, self._source.path))
        for name in list(other_files(self._storage, self._directory)):
            if name not in kept:
                self._storage.remove(f"{self._directory}/{name}")
        for folder in ("topics", "groups"):
            names = set(self._source.storage.list_directory(f"{self._source.path}/{folder}"))
            for name in self._storage.list_directory(f"{self._directory}/{folder}"):
                if name not in names:
                    self._storage.remove(f"{self._directory}/{folder}/{name}")
        for topic in topics:
            directory = f"{self._directory}/topics/{topic.id}"
            generations = {f"{each}" for each in topic.generations}
            for name in self._storage.list_directory(directory):
                if name.isdigit() and name not in generations:
                    self._storage.remove(f"{directory}/{name}")

    def _write_changed(self, name: str, content: bytes) -> None:
        path = f"{self._directory}/{name}"
        if not self._storage.exists(path) or self._storage.read_file(path) != content:
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self._directory}/{name}"
        self._storage.make_directory(path.rpartition("/")[0])
        self._storage.write_file(path, content)


def promote(directory: str, storage: Storage) -> str:
    """Let a mirror take writers, and return of what it was one.

    Raises
    ------
    OptionError
        Where it is no mirror.
    LockTimeoutError
        Where a process still mirrors into it; names the process.
    """
    source = _known_source(storage, directory)
    if source is None:
        message = f"{directory} is no mirror; it takes writers already, or is no log"
        raise OptionError(message)
    with storage.lock(f"{directory}/{_LOCK}", _LOCK_TIMEOUT_US):
        storage.remove(f"{directory}/{MIRROR_FILE}")
    return source


def _known_source(storage: Storage, directory: str) -> str | None:
    try:
        content = storage.read_file(f"{directory}/{MIRROR_FILE}")
    except FileNotFoundError:
        return None
    try:
        return decode_checked(content, _MirrorFile).source
    except msgspec.DecodeError as error:
        message = (
            f"{directory}/{MIRROR_FILE} is damaged: {error}; of which log this is a mirror is not "
            "known: remove the folder and mirror anew, or remove the file to write to the log"
        )
        raise MirrorError(message) from error
