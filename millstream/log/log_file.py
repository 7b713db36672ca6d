"""`log.json`: the format of a log, and the number of its next topic."""

from __future__ import annotations

import msgspec

from millstream.errors import InvalidTopicError
from millstream.log.checked_json import checked_json, try_unchecked
from millstream.log.frame_header import Damage
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
    found = try_unchecked(content)
    try:
        file = msgspec.json.decode(b"" if isinstance(found, Damage) else found, type=LogFile)
    except msgspec.DecodeError as error:
        reason = found.reason if isinstance(found, Damage) else error
        message = f"{path} is damaged: {reason}; restore it from a copy"
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
    storage.write_file(f"{path}/log.json", checked_json(msgspec.json.encode(file)))
    return topic_id
