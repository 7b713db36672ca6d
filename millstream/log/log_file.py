"""`log.json`: the format of a log, and the number of its next topic."""

from __future__ import annotations

import msgspec

from millstream.errors import InvalidTopicError
from millstream.log.checked_json import decode_checked, encode_checked
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
        file = decode_checked(content, LogFile)
    except msgspec.DecodeError as error:
        message = f"{path} is damaged: {error}; restore it from a copy"
        raise InvalidTopicError(message) from error
    if file.format > FORMAT_VERSION:
        message = f"{path} is of format {file.format}; update Millstream to read it"
        raise InvalidTopicError(message)
    return file


def take_topic_id(storage: Storage, path: str) -> str:
    """Return the id of a new topic of the log in `path`; it is never given to another one.

    Only the holder of the topics' lock may. Raises `InvalidTopicError` where the file is damaged.
    """
    file = read_log_file(storage, path)
    topic_id = f"{file.next_topic:08d}"
    # Used up before there is a topic: who dies in between loses a number.
    file.next_topic += 1
    storage.write_file(f"{path}/log.json", encode_checked(file))
    return topic_id
