"""The log of an address: `Log` as users know it, over a server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import msgspec
import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import OptionError
from millstream.log.bells import Bells
from millstream.log.cleaner import Cleaning
from millstream.log.generations import partition_name
from millstream.log.groups.groups import Groups
from millstream.log.log import Log
from millstream.log.partition import Partition
from millstream.log.remote import messages as m
from millstream.log.remote.address import Address
from millstream.log.remote.connection import TIMEOUT_S, Connection, ConnectionOptions
from millstream.log.remote.remote_bells import RemoteBells
from millstream.log.remote.remote_groups import RemoteGroups
from millstream.log.remote.remote_partition import Asker, RemotePartition
from millstream.log.remote.remote_transactions import RemoteTransactions
from millstream.log.remote.token import VARIABLE, check_token
from millstream.log.topic import CLEANER_TIMEOUT_US, Topic
from millstream.log.topic_config import TopicConfig
from millstream.log.transactions import Transactions
from millstream.storage import Storage

CERTIFICATES_VARIABLE = "MILLSTREAM_TLS_ROOTS"
CLEAN_S = 3_600.0
"""How long a server may take to clean a topic."""


class RemoteLog(Log):
    """The log that a server serves; `Log` makes one where it is given an address.

    Parameters
    ----------
    path
        `grpc://host:port` or `grpc+tls://host:port`.
    storage
        None can be given.
    clock, token, certificates, timeout_s
        As for `Log`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        storage: Storage | None = None,
        clock: Clock | None = None,
        token: str | None = None,
        certificates: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if storage is not None:
            message = f"a log at an address has no storage of its own; got one for {path}"
            raise OptionError(message)
        if not timeout_s > 0:
            message = f"timeout_s is a number of seconds above 0; got {timeout_s}"
            raise OptionError(message)
        address = Address.parse(os.fspath(path))
        token = os.environ.get(VARIABLE) or None if token is None else token
        trusted = certificates or _given_certificates()
        options = ConnectionOptions(check_token(token), trusted, timeout_s)
        self._asker = Asker(Connection(address, options))
        nothing = cast("Storage", NoStorage(str(address)))
        super().__init__(str(address), storage=nothing, clock=clock)
        self.bells = RemoteBells(self._asker, self.clock)
        """What tells when there is more to read."""

    def close(self) -> None:
        """End the connection; the next use opens one again."""
        self._asker.connection.close()

    @property
    def transactions(self) -> Transactions:
        """Owners, epochs and decisions of this log."""
        if self._transactions is None:
            self._transactions = RemoteTransactions(
                self.path, self.storage, self.clock, self._asker
            )
        return self._transactions

    def create_configured(self, config: TopicConfig, *, if_not_exists: bool = False) -> Topic:
        """Create the topic that `config` describes, but for its id; see `create_topic`."""
        request = m.CreateTopic(config.to_json().decode(), if_not_exists)
        self._asker.ask(request, m.Done)
        return self.topic(config.name)

    def alter_topic(
        self,
        name: str,
        *,
        config: Mapping[str, object] | None = None,
        add_columns: Iterable[pa.Field] = (),
    ) -> Topic:
        """Change settings of a topic, add columns, and return it; see `Log.alter_topic`."""
        topic = self.topic(name)
        changes = cast("dict[str, str | int | float | None]", dict(config or {}))
        added = pa.schema(list(add_columns)).serialize().to_pybytes()
        self._asker.ask(m.AlterTopic(name, changes, added), m.Done)
        topic.refresh()
        return topic

    def repartition(self, name: str, partitions: int) -> Topic:
        """Give a topic another number of partitions; see `Log.repartition`."""
        topic = self.topic(name)
        self._asker.ask(m.Repartition(name, partitions), m.Done)
        topic.refresh()
        return topic

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its rows for good; raises `UnknownTopicError`."""
        topic = self.topic(name)
        self._asker.ask(m.DeleteTopic(name, topic.config.id), m.Done)
        self._topics.pop(topic.config.id, None)

    def refuse_mirror(self) -> None:
        """Do nothing: the server refuses."""

    def _names(self) -> dict[str, TopicConfig]:
        topics = self._asker.ask(m.ListTopics(), m.Topics)
        configs = [TopicConfig.from_json(each.encode(), self.path) for each in topics.configs]
        return {each.name: each for each in configs}

    @cached_property
    def _groups(self) -> Groups:
        return RemoteGroups(self._asker, self.clock, self.topic)

    def _open_topic(self, config: TopicConfig) -> Topic:
        return RemoteTopic(config, self, self._asker)


class RemoteTopic(Topic):
    """A topic of a served log.

    Parameters
    ----------
    config
        What it is.
    log, asker
        The log, and who asks its server.
    """

    def __init__(self, config: TopicConfig, log: RemoteLog, asker: Asker) -> None:
        directory = f"{log.path}/topics/{config.id}"
        super().__init__(config, directory, log.storage, log.clock, log.transactions)
        self._log = log
        self._asker = asker

    def reopened(self) -> RemoteTopic:
        """Return another object of the same topic, to be read in another thread."""
        again = RemoteTopic(self.config, self._log, self._asker)
        again._transactions = self._transactions.reopened()
        return again

    @property
    def bells(self) -> Bells:
        """What tells when there is more to read; the server is asked."""
        return self._log.bells

    def bell(self, partition: int, generation: int | None = None) -> int:
        """Return the number of a partition's bell."""
        generation = self.config.generation if generation is None else generation
        return self._log.bells.number(m.Place(self.config.id, partition, generation))

    def stable_ends(self) -> list[int]:
        """Return each partition's last stable offset: where read-committed readers stop."""
        return self._stable_ends(self.config.generation, range(self.partitions))

    def stable_end(self, partition: int, generation: int | None = None) -> int:
        """Return the last stable offset of one partition."""
        generation = self.config.generation if generation is None else generation
        return self._stable_ends(generation, [partition])[0]

    def follow(self, generation: int) -> None:
        """Take note of a new generation; the server waits for one that is under way."""
        self._asker.ask(m.Follow(self.name, generation), m.Done)
        self.refresh()

    def clean(self, timeout_us: int = CLEANER_TIMEOUT_US) -> list[Cleaning]:
        """Remove and compact what the settings say; see `Topic.clean`. The server does it."""
        answer = self._asker.ask(m.CleanTopic(self.name), m.Cleaned, more_s=CLEAN_S)
        return list(answer.cleanings)

    def describe(self) -> dict[str, object]:
        """Return what there is to know; see `Topic.describe`. The directory is the server's."""
        answer = self._asker.ask(m.DescribeTopic(self.name), m.Description)
        return msgspec.json.decode(answer.description, type=dict[str, Any])

    def _open_partition(self, generation: int, index: int) -> Partition:
        config = self.config
        remote = RemotePartition(
            self._asker,
            m.Place(config.id, index, generation),
            config.stored_schema,
            name=partition_name(self.name, generation, index),
            durability=config.durability,
            time_column=config.time,
        )
        return cast("Partition", remote)

    def _stable_ends(self, generation: int, partitions: Sequence[int]) -> list[int]:
        request = m.FindStableEnds(self.config.id, generation, tuple(partitions))
        return list(self._asker.ask(request, m.Offsets).offsets)

    def _read_config(self) -> TopicConfig:
        found = [each for each in self._log.configs() if each.id == self.config.id]
        return found[0] if found else self.config  # deleted: the next append says so


class NoStorage:
    """In place of a storage: says that a log at an address has none."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __getattr__(self, name: str) -> Any:
        message = (
            f"the log at {self._address} is on another machine, whose files this needs ({name}); "
            "open its directory there"
        )
        raise OptionError(message)


def _given_certificates() -> bytes | None:
    """Return the certificates in the file that the environment names, if it does."""
    path = os.environ.get(CERTIFICATES_VARIABLE)
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        message = f"cannot read the certificates of {CERTIFICATES_VARIABLE}={path!r}: {error}"
        raise OptionError(message) from error
