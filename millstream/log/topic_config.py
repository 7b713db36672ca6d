"""What a topic is, as its `topic.json` keeps it, and what is allowed."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, get_args

import msgspec
import pyarrow as pa
import pyarrow.types as pat

from millstream.errors import (
    InvalidTopicError,
    OffsetOutOfRangeError,
    UnknownColumnError,
    nearest,
)
from millstream.log.checked_json import checked_json, try_unchecked
from millstream.log.columns import OPERATION_FIELD
from millstream.log.frame_header import Damage
from millstream.log.generations import ClosedGeneration
from millstream.log.key_hash import KEY_GROUPS, is_key_type
from millstream.log.metadata import ColumnLayout
from millstream.log.settings import TopicSettings, Value, parse_config

APPEND = 0
TOMBSTONE = 1

Durability = Literal["fsync", "os"]

FILES_REMEMBERED = 256
"""Contents of `topic.json`, the last ones read, whose meaning is kept."""

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Everything about a topic that its rows do not say.

    Parameters
    ----------
    id
        Unique in the log and never used again; the topic's folder is called so.
    name
        As users call it.
    schema
        Columns of the rows.
    partitions
        How many, 1 to 4096.
    key
        Columns whose hash chooses the partition; may be empty.
    time
        Column with the event time, or `None`.
    table
        Whether the latest row of a key replaces the ones before, and keys can be deleted.
    durability
        `"fsync"`: readers see what is on stable storage; `"os"`: what was written.
    created_us
        When it was created.
    generation
        Counts changes of the partition count.
    config
        The settings that were set, by name; see `millstream.log.settings`.
    older
        The generations before the present one that still have rows, the oldest first.
    """

    id: str
    name: str
    schema: pa.Schema
    partitions: int
    key: tuple[str, ...]
    time: str | None
    table: bool
    durability: Durability
    created_us: int
    generation: int = 0
    config: Mapping[str, Value] = field(default_factory=dict)
    older: tuple[ClosedGeneration, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= self.partitions <= KEY_GROUPS:
            message = (
                f"topic {self.name!r} needs 1 to {KEY_GROUPS} partitions; got {self.partitions}"
            )
            raise InvalidTopicError(message)
        self._check_columns()
        if self.table and not self.key:
            message = f"table topic {self.name!r} needs key columns; name them with key="
            raise InvalidTopicError(message)
        if self.durability not in get_args(Durability):
            message = (
                f"topic {self.name!r} can have durability 'fsync' or 'os'; got {self.durability!r}"
            )
            raise InvalidTopicError(message)
        object.__setattr__(self, "config", parse_config(self.config, self.name))
        if self.settings.compacts and not self.key:
            message = (
                f"topic {self.name!r} cannot have cleanup.policy {self.settings.cleanup_policy!r} "
                "without key columns; name them with key= when it is created"
            )
            raise InvalidTopicError(message)

    @property
    def settings(self) -> TopicSettings:
        """What was set, and the defaults."""
        return TopicSettings.of(self.config, table=self.table)

    @property
    def stored_schema(self) -> pa.Schema:
        """The columns in segments: the topic's, and `_op` in table topics."""
        return self.schema.append(OPERATION_FIELD) if self.table else self.schema

    def with_columns(self, columns: Iterable[pa.Field]) -> TopicConfig:
        """Return this with further columns at the end; raises `InvalidTopicError`."""
        added = list(columns)
        for each in added:
            if each.name in self.schema.names:
                message = (
                    f"topic {self.name!r} has a column {each.name!r} already; columns are added, "
                    "never changed or removed"
                )
                raise InvalidTopicError(message)
            if not each.nullable:
                message = (
                    f"column {each.name!r} cannot be added to topic {self.name!r}: the rows that "
                    "are there have no value of it; make it nullable"
                )
                raise InvalidTopicError(message)
        return replace(self, schema=pa.schema([*self.schema, *added]))

    @property
    def generations(self) -> list[int]:
        """The generations that have rows, the oldest first, and the present one."""
        return [*(each.number for each in self.older), self.generation]

    def ends_of(self, generation: int) -> tuple[int, ...] | None:
        """Return at which offsets the partitions of a generation were closed; `None`: not yet.

        Raises `OffsetOutOfRangeError` where there is no such generation, or not any more.
        """
        if generation == self.generation:
            return None
        for each in self.older:
            if each.number == generation:
                return each.ends
        message = (
            f"topic {self.name!r} has the generations {self.generations}; got {generation}; the "
            "rows of older ones were removed"
        )
        raise OffsetOutOfRangeError(message)

    def partitions_of(self, generation: int) -> int:
        """Return how many partitions a generation has; raises as `ends_of`."""
        ends = self.ends_of(generation)
        return self.partitions if ends is None else len(ends)

    def following(self, generation: int) -> int:
        """Return the generation that is read after an older one."""
        return next(each for each in self.generations if each > generation)

    def repartitioned(self, partitions: int, ends: Sequence[int], now_us: int) -> TopicConfig:
        """Return this topic with a new generation; the present one was closed now at `ends`."""
        closed = ClosedGeneration(self.generation, tuple(ends), now_us)
        return replace(
            self,
            partitions=partitions,
            generation=self.generation + 1,
            older=(*self.older, closed),
        )

    def to_file(self) -> bytes:
        """Return the content of `topic.json`."""
        return checked_json(self.to_json())

    @staticmethod
    @lru_cache(maxsize=FILES_REMEMBERED)
    def from_file(content: bytes, path: str) -> TopicConfig:
        """Return the configuration in the file `path`; raises `InvalidTopicError`.

        Whoever opens a log reads each file more than once; what it says is worked out once.
        """
        found = try_unchecked(content)
        if isinstance(found, Damage):
            message = f"{path} is damaged: {found.reason}; restore it from a copy"
            raise InvalidTopicError(message)
        return TopicConfig.from_json(found, path)

    def to_json(self) -> bytes:
        """Return the configuration as JSON."""
        stored = _StoredConfig(
            id=self.id,
            name=self.name,
            schema=base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            columns={field.name: str(field.type) for field in self.schema},
            partitions=self.partitions,
            key=self.key,
            time=self.time,
            table=self.table,
            durability=self.durability,
            created_us=self.created_us,
            generation=self.generation,
            older=tuple(
                _StoredGeneration(each.number, each.ends, each.closed_us) for each in self.older
            ),
            config=dict(self.config),
        )
        return msgspec.json.encode(stored)

    @staticmethod
    def from_json(content: bytes, path: str) -> TopicConfig:
        """Return the configuration in `content`, which came from `path`.

        Raises
        ------
        InvalidTopicError
            When the file cannot be understood; names it.
        """
        try:
            stored = msgspec.json.decode(content, type=_StoredConfig)
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored.schema)))
        except (msgspec.DecodeError, ValueError, OSError, pa.ArrowException) as error:
            message = f"{path} is damaged or of a newer version: {error}; restore it from a copy"
            raise InvalidTopicError(message) from error
        return TopicConfig(
            stored.id, stored.name, schema, stored.partitions, stored.key, stored.time,
            stored.table, stored.durability, stored.created_us, stored.generation, stored.config,
            tuple(
                ClosedGeneration(each.generation, each.ends, each.closed_us)
                for each in stored.older
            ),
        )  # fmt: skip

    def _check_columns(self) -> None:
        names = self.schema.names
        if not names or len(set(names)) != len(names):
            message = f"topic {self.name!r} needs columns with names that differ; got {names}"
            raise InvalidTopicError(message)
        for name in names:
            if name.startswith("_") or not name:
                message = (
                    f"column {name!r} of topic {self.name!r}: names that start with '_' are the "
                    "system's; rename the column"
                )
                raise InvalidTopicError(message)
        for name in (*self.key, *(() if self.time is None else (self.time,))):
            if name not in names:
                message = (
                    f"topic {self.name!r} has no column {name!r} for its key or time"
                    f"{nearest(name, names)}"
                )
                raise InvalidTopicError(message)
        if len(set(self.key)) != len(self.key):
            message = f"topic {self.name!r} names a key column twice: {list(self.key)}"
            raise InvalidTopicError(message)
        for name in self.key:
            if not is_key_type(self.schema.field(name).type):
                message = (
                    f"key column {name!r} of topic {self.name!r} is "
                    f"{self.schema.field(name).type}, which cannot be a key; use a column of "
                    "numbers, strings, bytes, dates or times"
                )
                raise InvalidTopicError(message)
        ColumnLayout.of(self.stored_schema)  # raises where a type cannot be stored
        if self.time is not None and not pat.is_timestamp(self.schema.field(self.time).type):
            message = (
                f"the time column {self.time!r} of topic {self.name!r} must be a timestamp; it is "
                f"{self.schema.field(self.time).type}; cast it first"
            )
            raise InvalidTopicError(message)


class _StoredGeneration(msgspec.Struct, forbid_unknown_fields=True):
    """An older generation: at which offset each of its partitions was closed."""

    generation: int
    ends: tuple[int, ...]
    closed_us: int


class _StoredConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of `topic.json`. `columns` is for people; `schema` is what counts."""

    id: str
    name: str
    schema: str
    columns: dict[str, str]
    partitions: int
    key: tuple[str, ...]
    time: str | None
    table: bool
    durability: Durability
    created_us: int
    generation: int
    older: tuple[_StoredGeneration, ...]
    config: dict[str, Value]


def check_name(name: str) -> None:
    """Raise `InvalidTopicError` unless `name` can be a topic's (Kafka's rule)."""
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        message = (
            f"{name!r} cannot be a topic's name; use 1 to 249 of the characters a-z, A-Z, 0-9, "
            "'.', '_' and '-'"
        )
        raise InvalidTopicError(message)


def check_columns(schema: pa.Schema, columns: Sequence[str], topic: str) -> None:
    """Raise `UnknownColumnError` where `columns` names one that `schema` lacks."""
    for name in columns:
        if name not in schema.names:
            message = f"topic {topic!r} has no column {name!r}{nearest(name, schema.names)}"
            raise UnknownColumnError(message)
