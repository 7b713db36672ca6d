"""The log of a directory: where topics are created, found, written and read.

Every job imports this; what few need, groups and cleaning, is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self, Unpack, cast, overload

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import (
    LogError,
    MirrorError,
    OptionError,
    TopicExistsError,
    UnknownTopicError,
    nearest,
)
from millstream.log.consumer import Columns, Consumer
from millstream.log.extras import import_extra
from millstream.log.links import refuse_links
from millstream.log.log_file import take_topic_id
from millstream.log.partition import Partition
from millstream.log.producer import Producer
from millstream.log.remote.address import is_address
from millstream.log.repartition import repartition
from millstream.log.settings import altered_config, parse_config
from millstream.log.tier.mover import remove_all_moved
from millstream.log.topic import Topic
from millstream.log.topic_config import Durability, TopicConfig, check_name
from millstream.log.transaction import Transaction
from millstream.log.transactions import GROUP_PARTICIPANT, Participant, Transactions, Writer
from millstream.storage import Storage

if TYPE_CHECKING:
    from millstream.log.cleaner import Cleaning
    from millstream.log.erasure import Erasure
    from millstream.log.groups.consumer import GroupConsumer, Start
    from millstream.log.groups.group import Group
    from millstream.log.groups.groups import Groups, MemberOptions
    from millstream.log.groups.member import GroupMember
    from millstream.log.hosts.asynchronous import AsyncProducer
    from millstream.log.reader import Isolation
    from millstream.log.sender import Gathering

MIRROR_FILE = "mirror.json"
"""In a log that follows another one; it takes no writers."""


class Log:
    """A log is a directory; any number of processes may use it at the same time.

    It may be on another machine, where `millstream log serve` serves it.

    An object of this class belongs to one thread; each thread opens its own on the directory.

    Parameters
    ----------
    path
        The directory, created when the first topic is; or the address of a served log,
        `grpc://host:port` or, encrypted, `grpc+tls://host:port`.
    storage, clock
        The machine's by default.
    token
        What the server asks for, by default that of `MILLSTREAM_TOKEN`; a directory needs none.
    certificates
        PEM of whom to trust as an encrypted server, by default the file of
        `MILLSTREAM_TLS_ROOTS`, else those that the machine trusts.
    timeout_s
        How long a lost connection to a server is made again, before `RemoteLogError` is raised.

    Examples
    --------
    >>> log = Log("data")  # doctest: +SKIP
    >>> log.create_topic("flights", schema, partitions=4, key=["tailnum"])  # doctest: +SKIP
    """

    def __new__(cls, path: str | os.PathLike[str] = "", *_: object, **__: object) -> Self:
        """Return the log of an address where `path` is one."""
        if cls is Log and is_address(os.fspath(path)):
            from millstream.log.remote.remote_log import RemoteLog

            return cast("Self", object.__new__(RemoteLog))
        return object.__new__(cls)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        storage: Storage | None = None,
        clock: Clock | None = None,
        token: str | None = None,
        certificates: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        del token, certificates, timeout_s  # a directory has no use for them
        if storage is None:
            from millstream.storage_local import LocalStorage

            storage = LocalStorage()
            path = storage.absolute_path(os.fspath(path))
        if clock is None:
            from millstream.clock import SystemClock

            clock = SystemClock()
        self.path = os.fspath(path)
        self.storage = storage
        self.clock = clock
        self._topics: dict[str, Topic] = {}
        self._configs: dict[str, TopicConfig] = {}
        self._transactions: Transactions | None = None

    @staticmethod
    def default() -> Log:
        """Return the log of `MILLSTREAM_LOG`, or of `./data`."""
        return Log(os.environ.get("MILLSTREAM_LOG") or "data")

    @property
    def transactions(self) -> Transactions:
        """Owners, epochs and decisions of this log."""
        if self._transactions is None:
            self._transactions = Transactions(
                self.path, self.storage, self.clock, self.sync_participant, self.refuse_mirror
            )
        return self._transactions

    def create_topic(
        self,
        name: str,
        schema: pa.Schema,
        *,
        partitions: int = 1,
        key: Sequence[str] = (),
        time: str | None = None,
        table: bool = False,
        durability: Durability = "fsync",
        config: Mapping[str, object] | None = None,
        if_not_exists: bool = False,
    ) -> Topic:
        """Create a topic and return it.

        Parameters
        ----------
        name
            1 to 249 letters, digits, `.`, `_` and `-`.
        schema
            Columns of the rows. Names that start with `_` are the system's.
        partitions
            How many; rows of one key are in one of them, in order.
        key
            Columns whose hash chooses the partition.
        time
            Column with the event time, a timestamp.
        table
            The latest row of a key replaces the ones before it.
        durability
            `"fsync"`: readers see what is on stable storage. `"os"`: what was written; a power
            cut may take it back.
        config
            Settings by name, e.g. `{"segment.bytes": 2**30}`; see
            `millstream.log.settings.TopicSettings`.
        if_not_exists
            Return the topic of that name, if there is one, as it is.

        Raises
        ------
        TopicExistsError
            When the name is taken.
        InvalidTopicError
            When the name, the schema or an option cannot be used.
        """
        made = TopicConfig(
            "", name, schema, partitions, tuple(key), time, table, durability,
            self.clock.now_us(), config=parse_config(config or {}, name),
        )  # fmt: skip
        return self.create_configured(made, if_not_exists=if_not_exists)

    def create_configured(self, config: TopicConfig, *, if_not_exists: bool = False) -> Topic:
        """Create the topic that `config` describes, but for its id; see `create_topic`."""
        name = config.name
        self.storage.make_directory(self.path)
        self.refuse_mirror()
        for each in ("topics", "topics.lock"):
            refuse_links(self.storage, self.path, f"{self.path}/{each}")
        with self.storage.lock(f"{self.path}/topics.lock"):
            if name in self._names():
                if if_not_exists:
                    return self.topic(name)
                message = f"topic {name!r} exists already in {self.path}; choose another name"
                raise TopicExistsError(message)
            topic_id = take_topic_id(self.storage, self.path)
            directory = self._directory(topic_id)
            self.storage.make_directory(directory)
            made = replace(config, id=topic_id)
            self.storage.write_file(f"{directory}/topic.json", made.to_file())
        return self.topic(name)

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises
        ------
        UnknownTopicError
            When there is none of that name; lists the nearest names.
        """
        names = self._names()
        if name not in names:
            check_name(name)
            message = f"no topic {name!r} in the log {self.path}{nearest(name, names)}"
            raise UnknownTopicError(message)
        config = names[name]
        found = self._topics.get(config.id)
        if found is None:
            found = self._topics[config.id] = self._open_topic(config)
        found.refresh()  # what is known of it by its name may be old
        return found

    def alter_topic(
        self,
        name: str,
        *,
        config: Mapping[str, object] | None = None,
        add_columns: Iterable[pa.Field] = (),
    ) -> Topic:
        """Change settings of a topic, add columns to it, and return it.

        Who has it open, in any process, goes by changed settings from the next segment or
        cleaning on; takes rows with the new columns from now on; and reads them when asked to.

        Parameters
        ----------
        config
            Settings by name; `None` takes one back to its default.
        add_columns
            Fields that may be null, e.g. a `pa.Schema`; they come behind the topic's, and are
            null in the rows that are there.

        Raises
        ------
        UnknownTopicError, InvalidTopicError
            Nothing was changed then.
        """
        self.refuse_mirror()
        topic = self.topic(name)
        path = f"{topic.directory}/topic.json"
        with self.storage.lock(f"{self.path}/topics.lock"):
            topic.refresh()  # others may have altered it
            altered = replace(
                topic.config.with_columns(add_columns),
                config=altered_config(topic.config.config, config or {}, name),
            )
            self.storage.write_file(path, altered.to_file())
        topic.refresh()
        return topic

    def repartition(self, name: str, partitions: int) -> Topic:
        """Give a topic another number of partitions, more or fewer, and return it.

        A new generation begins; the rows of each key stay in their order: producers split by the
        new number at once, and who reads, reads the old partitions first. Nothing is copied.

        Raises
        ------
        UnknownTopicError
            Where there is no such topic.
        InvalidTopicError
            Where it cannot have so many.
        LogError
            Where the disk refuses, or an append does not end; the topic stays as it is.
        """
        self.refuse_mirror()
        topic = self.topic(name)
        repartition(topic, partitions, self.path, self.storage, self.clock)
        return topic

    def configs(self) -> list[TopicConfig]:
        """Return what all topics are, as of now, sorted by name."""
        self._configs.clear()  # others may have altered them
        return [config for _, config in sorted(self._names().items())]

    def erase(self, topic: str, keys: pa.RecordBatch | pa.Table | None) -> Erasure:
        """Remove all rows of some keys from a topic for good, and say what was removed.

        Each segment that has such rows is rewritten, a stream's, too. When this returns, no file
        of the log has them; who read them before, and copies such as backups, still do. Rows that
        are appended meanwhile stay. Where a process dies in it, the next erasure or cleaning of
        the topic ends what it began, and rows that were appended since stay, too.

        Parameters
        ----------
        keys
            The topic's key columns, a row for each key; `None`: only end what was begun.

        Raises
        ------
        UnknownTopicError, OptionError, SchemaMismatchError
            Where there is no such topic, it has no key, or the keys do not fit.
        LogError
            Where the disk refuses, or another process cleans: it is not done then.
        """
        self.refuse_mirror()
        return self.topic(topic).erase(keys)

    def clean(self, topic: str | None = None) -> list[Cleaning]:
        """Remove and compact what the settings say, of one topic or of all.

        Appenders do it by themselves when they start a segment; this does it at once, e.g. in
        a topic that nobody writes to.

        Raises
        ------
        UnknownTopicError
            Where there is no such topic.
        LockTimeoutError
            Where another process is cleaning, for longer than ten seconds.
        """
        self.refuse_mirror()
        names = self.topic_names() if topic is None else [topic]
        return [cleaning for name in names for cleaning in self.topic(name).clean()]

    def topic_names(self) -> list[str]:
        """Return the names of all topics, sorted."""
        return sorted(self._names())

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its rows for good; raises `UnknownTopicError`.

        Who has it open finds out with the next append.
        """
        self.refuse_mirror()
        topic = self.topic(name)
        with self.storage.lock(f"{self.path}/topics.lock"):
            # Without its description the topic is gone; what a crash leaves of it is rubbish.
            self.storage.remove(f"{topic.directory}/topic.json")
            remove_all_moved(self.storage, topic.directory)
            self.storage.remove(topic.directory)
        self._topics.pop(topic.config.id, None)
        self._configs.pop(topic.config.id, None)

    def producer(
        self,
        topic: str,
        *,
        name: str | None = None,
        writer: Writer | None = None,
        **gathering: Unpack[Gathering],
    ) -> Producer:
        """Return a producer for a topic.

        Parameters
        ----------
        name
            Of the producer, the same in every run: its appends are numbered, and each is stored
            once, however often it is made. Opened again, it fences the one before, which can
            append no more. Names are those of `transaction`, too.
        writer
            Rows of it can be part of its transactions.
        **gathering
            When rows that are sent one by one are appended; see `Gathering`.

        Raises `UnknownTopicError`, and `MirrorError` where the log follows another one.
        """
        self.refuse_mirror()
        found = self.topic(topic)
        if name is not None:
            if writer is not None:
                message = f"a producer has a name or a writer; got {name!r} and {writer.owner!r}"
                raise OptionError(message)
            writer = self.transactions.writer(name)
        return Producer(
            found,
            self.clock,
            writer,
            None if writer is None else partial(self.transactions.check, writer),
            is_named=name is not None,
            **gathering,
        )

    def async_producer(
        self, topic: str, *, name: str | None = None, **gathering: Unpack[Gathering]
    ) -> AsyncProducer:
        """Return a producer for an event loop; see `producer`."""
        from millstream.log.hosts.asynchronous import AsyncProducer

        return AsyncProducer(self.producer(topic, name=name), **gathering)

    @overload
    def consumer(
        self,
        topics: str | Sequence[str],
        *,
        group: None = None,
        start: Start = "beginning",
        columns: Columns = None,
        isolation: Isolation = "read_committed",
        where: object = None,
    ) -> Consumer: ...

    @overload
    def consumer(
        self,
        topics: str | Sequence[str],
        *,
        group: str,
        member: str | None = None,
        start: Start = "beginning",
        columns: Columns = None,
        isolation: Isolation = "read_committed",
        where: object = None,
        **options: Unpack[MemberOptions],
    ) -> GroupConsumer: ...

    def consumer(
        self,
        topics: str | Sequence[str],
        *,
        group: str | None = None,
        member: str | None = None,
        start: Start = "beginning",
        columns: Columns = None,
        isolation: Isolation = "read_committed",
        where: object = None,
        **options: Unpack[MemberOptions],
    ) -> Consumer:
        """Return a consumer of topics: of all their partitions, or of its share in a group.

        Parameters
        ----------
        topics
            One or several.
        group
            Whose members share the partitions out among them and commit how far they are; a
            group comes into being with its first member.
        member
            Of a static member, the name under which it comes back after a restart: then it has
            its partitions again, and nothing moves, if it does so in time.
        start
            `"beginning"` or `"end"`; in a group, where nothing is committed, or what is
            committed is out of range, or then `"error"`.
        columns, isolation, where
            As for `Topic.reader`; columns and conditions perhaps by topic.
        **options
            Of a member: see `millstream.log.groups.consumer.GroupOptions`.
        """
        names = [topics] if isinstance(topics, str) else list(topics)
        if group is not None:
            from millstream.log.groups.consumer import GroupOptions

            settings = GroupOptions(start=start, **options)
            return self._groups.consumer(names, group, member, settings, columns, isolation, where)
        if member is not None or options:
            given = ["member"] if member is not None else sorted(options)
            message = f"{given[0]!r} is an option of a group's consumer; name the group, too"
            raise OptionError(message)
        found = [self.topic(name) for name in names]
        return Consumer(
            found, self.clock, start=start, columns=columns, isolation=isolation, where=where
        )

    def member(
        self,
        topics: Sequence[str],
        group: str,
        member: str | None,
        session_timeout_us: int,
        *,
        from_beginning: bool = True,
    ) -> GroupMember:
        """Return what `consumer` joins a group by, for a server that does so for a client."""
        return self._groups.member(
            topics, group, member, session_timeout_us, from_beginning=from_beginning
        )

    def groups(self) -> list[str]:
        """Return the names of all groups, sorted."""
        return self._groups.names()

    def group_partitions(self) -> list[Partition]:
        """Return the partitions that hold what groups have committed: a part of every copy."""
        return self._groups.partitions()

    def group(self, name: str) -> Group:
        """Return a group, which need not exist yet; raises `InvalidGroupError`."""
        return self._groups.group(name)

    def duckdb(self, connection: Any = None) -> Any:
        """Return a DuckDB connection in which every topic is a table; needs the extra `duckdb`.

        A query reads the columns and rows that it asks for, and sees what is committed when it
        begins. Topics that are created later are unknown to it until this is called again.

        Parameters
        ----------
        connection
            Where the topics become tables: a connection, or the module `duckdb` for its default
            one; `None` opens a new one in memory.

        Examples
        --------
        >>> log.duckdb().sql("select carrier, avg(delay) from flights group by all")
        ... # doctest: +SKIP
        """
        database = import_extra("duckdb").connect() if connection is None else connection
        for name in self.topic_names():
            database.register(name, self.topic(name).to_dataset())
        return database

    @contextmanager
    def transaction(self, owner: str) -> Iterator[Transaction]:
        """Append to several topics at once: readers see all of it or nothing.

        Parameters
        ----------
        owner
            Who this is, the same in every run: a new transaction of the same owner aborts what
            an earlier life of it left undecided.

        It commits at the end of the `with` block, unless it was decided inside; an error
        inside aborts it.

        Examples
        --------
        >>> with log.transaction("billing") as transaction:  # doctest: +SKIP
        ...     transaction.append("invoices", invoices)
        ...     transaction.append("stock", changes)
        """
        transaction = Transaction(self, self.transactions.writer(owner))
        try:
            yield transaction
            if transaction.is_open:
                transaction.commit()
        except BaseException:
            # The first error is the one to tell. A commit that failed may have been decided,
            # or the disk may refuse this too; then the owner's next writer decides.
            with suppress(LogError):
                transaction.abort()
            raise

    def refuse_mirror(self) -> None:
        """Raise `MirrorError` where this log follows another one: what is written would differ."""
        if self.storage.exists(f"{self.path}/{MIRROR_FILE}"):
            message = (
                f"{self.path} is a mirror and takes no writers; write to the log that it follows, "
                "or make it a log of its own with `millstream log promote`"
            )
            raise MirrorError(message)

    def sync_participant(self, participant: Participant, losses: int | None = None) -> None:
        """Make durable what a partition, or a group's offsets, have; see `Partition.sync`."""
        topic, partition = participant
        if topic.startswith(GROUP_PARTICIPANT):
            self._groups.sync(topic)
        # The topic as it is now: it is no older than the participant.
        elif (found := self.topic(topic).participant(partition)) is not None:
            found.sync(losses=losses)

    def _names(self) -> dict[str, TopicConfig]:
        """Return the configurations of all topics by name, as they are on disk now."""
        found = {}
        for topic_id in self.storage.list_directory(f"{self.path}/topics"):
            config = self._configs.get(topic_id)
            path = f"{self._directory(topic_id)}/topic.json"
            if config is None or not self.storage.exists(path):
                self._configs.pop(topic_id, None)
                try:
                    content = self.storage.read_file(path)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # is being created or removed, or is none of ours
                config = self._configs[topic_id] = TopicConfig.from_file(content, path)
            found[config.name] = config
        return found

    def _open_topic(self, config: TopicConfig) -> Topic:
        directory = self._directory(config.id)
        refuse_links(self.storage, self.path, f"{directory}/topic.json")
        return Topic(config, directory, self.storage, self.clock, self.transactions)

    @cached_property
    def _groups(self) -> Groups:
        from millstream.log.groups.groups import Groups

        return Groups(
            self.path,
            self.storage,
            self.clock,
            lambda: self.transactions,
            self.topic,
            self._names,
            self.refuse_mirror,
        )

    def _directory(self, topic_id: str) -> str:
        return f"{self.path}/topics/{topic_id}"
