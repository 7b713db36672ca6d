"""`log.json`: the format of a log, and the number of its next topic."""

from __future__ import annotations

import msgspec

from millstream.errors import InvalidTopicError
from millstream.storage import Storage

FORMAT_VERSION = 1


class LogFile(msgspec.Struct):
    """The content of `log.json`."""

    format: int = FORMAT_VERSION
    next_topic: int = 1


def read_log_file(storage: Storage, path: str) -> LogFile:
    """Return what the log in `path` says of itself; raises `InvalidTopicError`."""
    path = f"{path}/log.json"
    try:
        content = storage.read_file(path)
    except FileNotFoundError:
        return LogFile()
    try:
        file = msgspec.json.decode(content, type=LogFile)
    except msgspec.DecodeError as error:
        message = f"{path} is damaged: {error}; restore it from a copy"
        raise InvalidTopicError(message) from error
    if file.format > FORMAT_VERSION:
        message = f"{path} is of format {file.format}; update Millstream to read it"
        raise InvalidTopicError(message)
    return file
