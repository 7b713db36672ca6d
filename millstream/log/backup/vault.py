"""What a store of objects holds of a log: pieces of files, and one manifest a backup.

pieces/ab/abcd…            bytes, named by their SHA-256: what was stored once is found again
backups/00000007.json      which pieces make up which files, as of backup 7
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
import pyarrow as pa

from millstream.errors import BackupError
from millstream.log.checked_json import decode_checked, encode_checked
from millstream.storage import Objects

FORMAT_VERSION = 1
PIECE_BYTES = 64 * 1024 * 1024

_FOLDER = "backups"


class Piece(msgspec.Struct, frozen=True):
    """Bytes of a file: their SHA-256 in hex digits, and how many."""

    sha256: str
    size: int


class SavedFile(msgspec.Struct, frozen=True):
    """A file as of a backup.

    `mark` is a segment's head (see `SegmentPicture`), empty for other files.
    """

    path: str
    size: int
    mark: str
    pieces: list[Piece]


class Manifest(msgspec.Struct, frozen=True):
    """A backup: everything that a log's folder needs to be the log again."""

    number: int
    taken_us: int
    log: str
    topics: list[str]
    files: list[SavedFile]
    format: int = FORMAT_VERSION


class Vault:
    """Pieces and manifests in `objects`. One process at a time may write."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._durable: set[str] = set()
        self.bytes_stored = 0
        """Bytes of pieces that were not there before."""

    def __str__(self) -> str:
        return str(self._objects)

    def trust(self, manifest: Manifest) -> None:
        """Take the pieces of a finished backup for durable.

        One that is there and in none may have been left by a process that died before it was.
        """
        self._durable |= {_piece_name(piece) for file in manifest.files for piece in file.pieces}

    def store(self, content: pa.Buffer) -> list[Piece]:
        """Store `content` in pieces, and return them; what is there already is not sent again."""
        pieces = []
        for begin in range(0, content.size, PIECE_BYTES):
            part = content.slice(begin, min(PIECE_BYTES, content.size - begin))
            piece = piece_of(part)
            name = _piece_name(piece)
            if name not in self._durable or not self._objects.exists(name):
                self._objects.put(name, part)
                self._durable.add(name)
                self.bytes_stored += part.size
            pieces.append(piece)
        return pieces

    def load(self, piece: Piece) -> pa.Buffer:
        """Return a piece's bytes, checked.

        Raises
        ------
        BackupError
            Where they are missing or damaged.
        """
        name = _piece_name(piece)
        try:
            content = self._objects.get(name)
        except FileNotFoundError as error:
            message = f"backup {self}: {name} is missing; restore an earlier backup"
            raise BackupError(message) from error
        if piece_of(content) != piece:
            message = f"backup {self}: {name} is damaged; restore an earlier backup"
            raise BackupError(message)
        return content

    def numbers(self) -> list[int]:
        """Return the numbers of the backups, rising."""
        names = [each.rpartition("/")[2] for each in self._objects.names(_FOLDER)]
        return sorted(int(each.removesuffix(".json")) for each in names if each[:-5].isdigit())

    def manifest(self, number: int | None = None) -> Manifest:
        """Return a backup's manifest, by default the newest.

        Raises
        ------
        BackupError
            Where there is none, or it is damaged or of a newer version.
        """
        numbers = self.numbers()
        if not numbers or (number is not None and number not in numbers):
            there = ", ".join(str(each) for each in numbers) or "none"
            wanted = "backup" if number is None else f"backup {number}"
            message = f"no {wanted} in {self}; there are: {there}"
            raise BackupError(message)
        name = _manifest_name(numbers[-1] if number is None else number)
        try:
            manifest = decode_checked(self._objects.get(name).to_pybytes(), Manifest)
        except msgspec.DecodeError as error:
            message = f"backup {self}: {name} is damaged: {error}; restore an earlier backup"
            raise BackupError(message) from error
        if manifest.format > FORMAT_VERSION:
            message = f"backup {self}: {name} is of format {manifest.format}; update Millstream"
            raise BackupError(message)
        for file in manifest.files:
            if any(part in {"", ".", ".."} for part in file.path.split("/")):
                message = f"backup {self}: {name} names a file outside of the log, {file.path!r}"
                raise BackupError(message)
        return manifest

    def finish(self, manifest: Manifest) -> None:
        """Make a backup count: all its pieces are stored."""
        self._objects.put(_manifest_name(manifest.number), encode_checked(manifest))

    def keep(self, count: int) -> None:
        """Remove all but the newest `count` backups, and the pieces that only they had."""
        numbers = self.numbers()
        for number in numbers[:-count]:
            self._objects.remove(_manifest_name(number))
        needed = {
            _piece_name(piece)
            for number in numbers[-count:]
            for file in self.manifest(number).files
            for piece in file.pieces
        }
        for name in self._objects.names("pieces"):
            if name not in needed:
                self._objects.remove(name)


def piece_of(content: pa.Buffer) -> Piece:
    """Return what a piece of these bytes is called."""
    return Piece(hashlib.sha256(content).hexdigest(), content.size)


def starts_with(content: pa.Buffer, pieces: list[Piece]) -> bool:
    """Return `True` iff `content` begins with the bytes of `pieces`."""
    return all(piece_of(part) == piece for part, piece in _parts(content, pieces))


def _parts(content: pa.Buffer, pieces: list[Piece]) -> Iterator[tuple[pa.Buffer, Piece]]:
    begin = 0
    for piece in pieces:
        yield content.slice(begin, piece.size), piece
        begin += piece.size


def _piece_name(piece: Piece) -> str:
    return f"pieces/{piece.sha256[:2]}/{piece.sha256}"


def _manifest_name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"
