"""The settings of a topic: names, types, defaults and bounds in one place.

Names are Kafka's where the meaning is Kafka's. A topic stores what was set and nothing else, so
that a default may change. To add one, add a field to `TopicSettings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TypeAlias, TypeVar

from millstream.errors import InvalidTopicError, nearest

Value: TypeAlias = int | float | str
Setting = TypeVar("Setting", bound=Value)

UNLIMITED = -1
INT64_MAX = 2**63 - 1
DAY_MS = 24 * 60 * 60 * 1000
POLICIES = ("delete", "compact", "compact,delete")


def _number(default: Setting, minimum: Setting, maximum: Setting) -> Setting:
    """Return a field for a number from `minimum` to `maximum`, of the type of these."""
    found: Setting = field(default=default, metadata={"range": (minimum, maximum)})
    return found


def _choice(default: str, *choices: str) -> str:
    """Return a field for one of `choices`."""
    found: str = field(default=default, metadata={"choices": choices})
    return found


def _text(what: str, pattern: str) -> str:
    """Return a field for a text, which may be empty, of a form that `what` describes."""
    found: str = field(default="", metadata={"text": (what, pattern)})
    return found


_PLACE = r"(/|[a-z][a-z0-9+.-]*://).*"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSettings:
    """What holds for a topic: what was set, and the defaults.

    Attributes
    ----------
    cleanup_policy
        `"delete"`: old segments are removed by `retention_ms` and `retention_bytes`;
        `"compact"`: of each key the latest row is kept; `"compact,delete"`: both. The default
        of a table topic is `"compact"`.
    compression_type
        How frames are compressed from now on; what is stored stays as it is.
    delete_retention_ms
        How long a tombstone stays after a compaction could have dropped it.
    local_retention_bytes, local_retention_ms
        Where there is a `remote_storage_place`: sealed segments beyond, or older, are moved
        there. −1: none, never.
    max_message_bytes
        The largest row, and the largest frame of several, before it is compressed.
    min_cleanable_dirty_ratio
        The part of a partition's sealed bytes that must not be compacted yet before an
        automatic compaction is worth its while, 0 to 1.
    remote_cache_bytes
        How much of what was moved is kept on this disk for those who read it, of all topics.
    remote_storage_place
        A folder or a URI that `pyarrow.fs` knows, for sealed segments; empty: none is moved.
    retention_bytes
        Sealed segments beyond this are removed, the oldest first; of each partition. −1: none.
    retention_ms
        Rows are removed when all of their segment are older than this. −1: never.
    segment_bytes
        A segment is sealed before it grows beyond this; one frame may be larger.
    segment_ms
        A segment is sealed by the first append that finds it older than this.
    transaction_timeout_ms
        A transaction whose rows are older than this, and that is not prepared, is aborted by the
        first reader that it holds back: its process is dead, or silent for too long.
    """

    cleanup_policy: str = _choice("delete", *POLICIES)
    compression_type: str = _choice("none", "none", "lz4", "zstd")
    delete_retention_ms: int = _number(DAY_MS, 0, INT64_MAX)
    local_retention_bytes: int = _number(UNLIMITED, UNLIMITED, INT64_MAX)
    local_retention_ms: int = _number(DAY_MS, UNLIMITED, INT64_MAX)
    max_message_bytes: int = _number(64 * 1024 * 1024, 1, 2**30)
    min_cleanable_dirty_ratio: float = _number(0.5, 0.0, 1.0)
    retention_bytes: int = _number(UNLIMITED, UNLIMITED, INT64_MAX)
    retention_ms: int = _number(UNLIMITED, UNLIMITED, INT64_MAX)
    remote_cache_bytes: int = _number(4 * 1024**3, 1, INT64_MAX)
    remote_storage_place: str = _text("a folder by its whole path, or a URI", _PLACE)
    segment_bytes: int = _number(256 * 1024 * 1024, 1, INT64_MAX)
    segment_ms: int = _number(7 * DAY_MS, 1, INT64_MAX)
    transaction_timeout_ms: int = _number(15 * 60 * 1000, 1, INT64_MAX // 1000)

    @property
    def compacts(self) -> bool:
        """Whether only the latest row of a key is kept for good."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Whether old segments are removed."""
        return "delete" in self.cleanup_policy

    @classmethod
    def of(cls, config: Mapping[str, Value], *, table: bool = False) -> TopicSettings:
        """Return what holds where `config` was set; its values were parsed by `parse_config`."""
        given = {name.replace(".", "_"): value for name, value in config.items()}
        if table:
            given.setdefault("cleanup_policy", "compact")
        return cls(**given)  # type: ignore[arg-type]  # parsed: each has its field's type

    def by_name(self) -> dict[str, Value]:
        """Return all values under the names that users know."""
        return {name: getattr(self, each.name) for name, each in _FIELDS.items()}


_FIELDS: dict[str, Field[Value]] = {
    each.name.replace("_", "."): each for each in fields(TopicSettings)
}


class LiveSettings:
    """The settings of a topic that somebody has open, while others may alter them.

    Any thread may use it.

    Parameters
    ----------
    known
        The settings as of now.
    read
        Reads them anew; `None`: they do not change.
    """

    def __init__(
        self, known: TopicSettings, read: Callable[[], TopicSettings] | None = None
    ) -> None:
        self.known = known
        """As of the last `refresh`."""
        self._read = read

    def refresh(self) -> TopicSettings:
        """Return the settings as they are now."""
        if self._read is not None:
            self.known = self._read()
        return self.known


def parse_config(config: Mapping[str, object], topic: str) -> dict[str, Value]:
    """Return settings by name with values of their types; numbers may come as text.

    Raises
    ------
    InvalidTopicError
        Where a name is unknown (with the nearest), or a value is of another type or out of
        range (with the range).
    """
    return {name: _parse(name, value, topic) for name, value in sorted(config.items())}


def altered_config(
    config: Mapping[str, Value], changes: Mapping[str, object], topic: str
) -> dict[str, Value]:
    """Return `config` with `changes`: a value sets, `None` removes; raises `InvalidTopicError`."""
    for name in changes:
        _field(name, topic)
    removed = {name for name, value in changes.items() if value is None}
    given = {name: value for name, value in changes.items() if value is not None}
    kept = {name: value for name, value in config.items() if name not in removed}
    return dict(sorted({**kept, **parse_config(given, topic)}.items()))


def _field(name: str, topic: str) -> Field[Value]:
    found = _FIELDS.get(name)
    if found is None:
        message = f"topic {topic!r} has no setting {name!r}{nearest(name, _FIELDS)}"
        raise InvalidTopicError(message)
    return found


def _parse(name: str, value: object, topic: str) -> Value:
    metadata = _field(name, topic).metadata
    where = f"setting {name!r} of topic {topic!r}"
    if "choices" in metadata:
        choices: tuple[str, ...] = metadata["choices"]
        # A policy of two parts may be given in any order.
        text = ",".join(sorted(part.strip() for part in str(value).split(",")))
        if text not in choices:
            allowed = " or ".join(repr(each) for each in choices)
            message = f"{where} is {allowed}; got {value!r}"
            raise InvalidTopicError(message)
        return text
    if "text" in metadata:
        what, pattern = metadata["text"]
        if not isinstance(value, str) or (value and re.fullmatch(pattern, value) is None):
            message = f"{where} is {what}; got {value!r}"
            raise InvalidTopicError(message)
        return value
    minimum, maximum = metadata["range"]
    kind = type(minimum)
    try:
        number = None if isinstance(value, bool) else kind(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    is_exact = not isinstance(value, float) or number == value
    if number is None or not is_exact or not minimum <= number <= maximum:
        word = "a whole number" if kind is int else "a number"
        message = f"{where} is {word} from {minimum} to {maximum}; got {value!r}"
        raise InvalidTopicError(message)
    parsed: Value = number
    return parsed
