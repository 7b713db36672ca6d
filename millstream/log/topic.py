"""A topic: its partitions, readers of them, and its rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import OffsetOutOfRangeError, OptionError
from millstream.log.background_cleaning import clean_later
from millstream.log.bells import Bells, bell_of
from millstream.log.columns import OPERATION_COLUMN
from millstream.log.extras import import_extra
from millstream.log.frame_header import FrameHeader
from millstream.log.generations import partition_name
from millstream.log.latest_rows import one_form
from millstream.log.links import refuse_links
from millstream.log.partition import Partition
from millstream.log.projection import READABLE_FIELDS, readable_schema
from millstream.log.reader import Isolation, PartitionReader, StableFrames
from millstream.log.scan import Bound, Scan
from millstream.log.settings import LiveSettings
from millstream.log.tier.cache import SegmentCache
from millstream.log.topic_config import TOMBSTONE, TopicConfig, check_columns
from millstream.log.transactions import Transactions
from millstream.storage import Storage

CLEANER_TIMEOUT_US = 10_000_000
if TYPE_CHECKING:
    import pandas
    import polars
    from pyarrow.dataset import Dataset

    from millstream.log.cleaner import Cleaning
    from millstream.log.erasure import Erasure
    from millstream.log.topic_cleaning import TopicCleaning


class Topic:
    """A topic of a log; made by `Log.topic`. As its log, it belongs to one thread.

    Parameters
    ----------
    config
        What it is.
    directory
        Its folder.
    storage, clock, transactions
        Of the log.
    """

    def __init__(
        self,
        config: TopicConfig,
        directory: str,
        storage: Storage,
        clock: Clock,
        transactions: Transactions,
    ) -> None:
        self.config = self._latest_config = config
        self._content = b""
        self._durable_content: bytes | None = None
        self.directory = directory
        self.settings = LiveSettings(config.settings, lambda: self._read_config().settings)
        self._storage = storage
        self._clock = clock
        self._transactions = transactions
        self._bells: Bells | None = None
        self.log_path = directory.rpartition("/topics/")[0]
        self._cache = SegmentCache(
            storage, self.log_path, lambda: self.settings.known.remote_cache_bytes
        )
        self._partitions: dict[tuple[int, int], Partition] = {}
        self._stable: dict[tuple[int, int], StableFrames] = {}

    def reopened(self) -> Topic:
        """Return another object of the same topic, to be read in another thread."""
        transactions = self._transactions.reopened()
        return Topic(self.config, self.directory, self._storage, self._clock, transactions)

    @property
    def name(self) -> str:
        """As users call it."""
        return self.config.name

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows."""
        return self.config.schema

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return self.config.partitions

    @property
    def bells(self) -> Bells:
        """What is rung when there is more to read."""
        if self._bells is None:
            self._bells = Bells(self.log_path, self._storage, self._clock)
        return self._bells

    def bell(self, partition: int, generation: int | None = None) -> int:
        """Return the number of a partition's bell, which is the same in all generations."""
        del generation
        return bell_of(self.config.id, partition)

    def partition(self, index: int, generation: int | None = None) -> Partition:
        """Return partition `index`, from 0, of a generation; by default of the present one.

        Raises
        ------
        OptionError
            Where it has no such partition.
        OffsetOutOfRangeError
            Where there is no such generation, or not any more.
        """
        if generation is not None and generation > self.config.generation:
            self.refresh()  # others know of it already
        config = self.config
        generation = config.generation if generation is None else generation
        count = config.partitions_of(generation)
        if not 0 <= index < count:
            message = f"topic {self.name!r} has partitions 0 to {count - 1}; got {index}"
            raise OptionError(message)
        found = self._partitions.get((generation, index))
        if found is None:
            found = self._partitions[generation, index] = self._open_partition(generation, index)
        return found

    def partitions_of(self, generation: int) -> list[Partition]:
        """Return all partitions of a generation, in order."""
        count = self.config.partitions_of(generation)
        return [self.partition(index, generation) for index in range(count)]

    def participant(self, index: int) -> Partition | None:
        """Return the partition that a participant of a transaction is; `None`: a closed one.

        All rows of that are durable. Raises `OptionError` where there never was one.
        """
        was_there = any(index < each.partitions for each in self.config.older)
        return None if was_there and index >= self.partitions else self.partition(index)

    def reader(
        self,
        partition: int,
        *,
        generation: int | None = None,
        offset: int | None = None,
        columns: Sequence[str] | None = None,
        isolation: Isolation = "read_committed",
        verify: bool = True,
        where: object = None,
        skips_only: bool = False,
        time_column: str | None = None,
    ) -> PartitionReader:
        """Return a reader of one partition from `offset` on; see `PartitionReader`.

        By default it starts with the first row that is kept of the present generation.
        """
        generation = self.config.generation if generation is None else generation
        found = self.partition(partition, generation)
        if offset is None:
            offset = found.first_offset
        if not set(columns or ()).issubset([*self.schema.names, *READABLE_FIELDS]):
            self.refresh()  # somebody may have added the column
        return PartitionReader(
            found,
            self.config,
            self._transactions,
            number=partition,
            offset=offset,
            columns=columns,
            isolation=isolation,
            stable_end=lambda: self.stable_end(partition, generation),
            verify=verify,
            where=where,
            skips_only=skips_only,
            time_column=time_column,
        )

    def stable_ends(self) -> list[int]:
        """Return each partition's last stable offset: where read-committed readers stop."""
        return [self.stable_end(index) for index in range(self.partitions)]

    def stable_end(self, partition: int, generation: int | None = None) -> int:
        """Return the last stable offset of one partition."""
        generation = self.config.generation if generation is None else generation
        return self._stable_frames(partition, generation).offset

    def durable_ends(self) -> list[int]:
        """Return for each partition the offset behind its last durable row."""
        return [self.partition(index).durable_end for index in range(self.partitions)]

    def offset_at_time(
        self, partition: int, timestamp_us: int, generation: int | None = None
    ) -> int:
        """Return the offset of a partition's first row of that time or later, else its end."""
        return self.partition(partition, generation).offset_at_time(timestamp_us)

    def is_older(self, generation: int) -> bool:
        """Return `True` iff another generation has begun since; mostly one look at memory."""
        if generation == self.config.generation and self.partition(0, generation).is_closed:
            self.refresh()
        return generation != self.config.generation

    def is_read(self, generation: int, readers: Mapping[int, PartitionReader]) -> bool:
        """Return `True` iff readers of partitions of an older generation are at their seams.

        The transactions before must be decided, too.
        """
        ends = self.config.ends_of(generation)
        assert ends is not None, "the present generation has no seam"
        return all(
            reader.at_end()
            and not reader.is_held_back
            and self.partition(index, generation).durable_end >= ends[index]
            for index, reader in readers.items()
        )

    def follow(self, generation: int) -> None:
        """Take note of a new generation, once a producer found `generation` closed.

        A repartition that is under way is waited for. One that died is taken back: partitions of
        the generation that is still the present one take rows again.
        """
        with self._storage.lock(f"{self.log_path}/topics.lock"):
            self.refresh()
            if self.config.generation == generation:
                self.reopen()

    def close(self) -> list[int]:
        """Refuse rows from now on, and return each partition's end; see `Log.repartition`."""
        return [self.partition(index).close() for index in range(self.partitions)]

    def reopen(self) -> None:
        """Take rows again. Its caller holds `topics.lock`."""
        for index in range(self.partitions):
            self.partition(index).reopen()

    def read(
        self,
        partition: int,
        start: int,
        end: int,
        *,
        generation: int | None = None,
        columns: Sequence[str] | None = None,
        isolation: Isolation = "read_committed",
    ) -> pa.Table:
        """Return the rows of a partition with offsets from `start` up to, not including, `end`.

        They are views of the files. What lies beyond the readable end is left out.

        Raises
        ------
        OffsetOutOfRangeError
            Where `start` is before the first row or beyond the readable end.
        """
        reader = self.reader(
            partition, generation=generation, offset=start, columns=columns, isolation=isolation
        )
        batches = []
        while (batch := reader.read(until=end)) is not None:
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)

    def read_schema(self, columns: Sequence[str]) -> pa.Schema:
        """Return the schema of a read of these columns; raises `UnknownColumnError`."""
        readable = readable_schema(self.schema)
        check_columns(readable, columns, self.name)
        return pa.schema([readable.field(name) for name in columns])

    def to_reader(
        self,
        columns: Sequence[str] | None = None,
        *,
        where: object = None,
        start: Bound | None = None,
        end: Bound | None = None,
        partitions: Sequence[int] | None = None,
        isolation: Isolation = "read_committed",
    ) -> pa.RecordBatchReader:
        """Return a stream of rows, partition after partition: any size, and hardly any memory.

        Older generations come first.

        Of a table topic these are the rows as they were appended, without tombstones;
        `latest` returns what holds now.

        Parameters
        ----------
        columns
            Names in the order wanted; `None` for all. Others are not touched.
        where
            A condition that the rows must fulfil: `("delay", ">", 60)`, a list of such, what
            `millstream.log.predicate` has, or an expression of `pyarrow.compute`. What can be told
            from statistics to hold no such row is not touched.
        start, end
            Offsets in each partition, or times with a zone: from `start` up to, not including,
            `end`.
        partitions
            Which; `None` for all.
        isolation
            As for `reader`.
        """
        scan = Scan(columns, where, start, end, partitions, isolation)
        return scan.reader(self)

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        where: object = None,
        start: Bound | None = None,
        end: Bound | None = None,
        partitions: Sequence[int] | None = None,
        isolation: Isolation = "read_committed",
    ) -> pa.Table:
        """Return rows as a table, as `to_reader` does; views of the files without a condition."""
        scan = Scan(columns, where, start, end, partitions, isolation)
        return scan.reader(self).read_all()

    def to_pandas(self, columns: Sequence[str] | None = None, **options: Any) -> pandas.DataFrame:
        """Return rows as a pandas `DataFrame`; as `to_arrow`. Needs the extra `pandas`."""
        import_extra("pandas")
        frame: pandas.DataFrame = self.to_arrow(columns, **options).to_pandas()
        return frame

    def to_polars(self, columns: Sequence[str] | None = None, **options: Any) -> polars.DataFrame:
        """Return rows as a Polars `DataFrame`; as `to_arrow`. Needs the extra `polars`."""
        library = import_extra("polars")
        frame: polars.DataFrame = library.from_arrow(self.to_arrow(columns, **options))
        return frame

    def to_dataset(self) -> Dataset:
        """Return the topic as a data set that DuckDB, Polars and pyarrow query by themselves.

        They ask it for the columns and the rows that they need: `to_reader` does the rest.
        """
        from millstream.log.dataset import TopicDataset

        return TopicDataset(self)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give all rows to any library that takes Arrow streams, e.g. `pyarrow.table(topic)`."""
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        from millstream.log.topic_card import topic_html

        return topic_html(self)

    def latest(self) -> pa.Table:
        """Return the latest row of each key of a table topic, without deleted ones.

        Raises
        ------
        OptionError
            Where the topic is no table.
        """
        if not self.config.table:
            message = f"topic {self.name!r} is a stream; only a table has latest rows"
            raise OptionError(message)
        parts = []
        for generation, index in self.places():
            reader = self.reader(index, generation=generation)
            batches = []
            while (batch := reader.read_table()) is not None:
                batches.append(batch)
            if batches:
                parts.append(self._latest_of(pa.Table.from_batches(batches)))
        if self.config.older and parts:
            parts = [self._latest_of(pa.concat_tables(parts))]
        rows = pa.concat_tables([self.config.stored_schema.empty_table(), *parts])
        kept = rows.column(OPERATION_COLUMN).to_numpy() != TOMBSTONE
        return rows.filter(pa.array(kept)).select(self.schema.names)

    def places(self) -> list[tuple[int, int]]:
        """Return all partitions of all generations, as (generation, partition), oldest first."""
        config = self.config
        return [
            (generation, index)
            for generation in config.generations
            for index in range(config.partitions_of(generation))
        ]

    def clean(self, timeout_us: int = CLEANER_TIMEOUT_US) -> list[Cleaning]:
        """Remove and compact what the settings say, and return what was done to each partition.

        Readers and writers go on beside it. Raises `LockTimeoutError` where another cleaner is
        at work for longer than `timeout_us`.
        """
        return self.cleaning.clean(timeout_us)

    def erase(
        self, keys: pa.RecordBatch | pa.Table | None, timeout_us: int = CLEANER_TIMEOUT_US
    ) -> Erasure:
        """Remove all rows of `keys`, and of an erasure that was not done; see `Log.erase`."""
        return self.cleaning.erase(keys, timeout_us)

    @property
    def cleaning(self) -> TopicCleaning:
        """What removes rows."""
        from millstream.log.topic_cleaning import TopicCleaning

        return TopicCleaning(self, self._storage, self._clock, self._transactions)

    def forget(self, generation: int) -> None:
        """Close what is open of a generation that was removed."""
        for place in [each for each in self._partitions if each[0] == generation]:
            self._partitions.pop(place)
            self._stable.pop(place, None)

    def describe(self) -> dict[str, object]:
        """Return what there is to know: configuration, and the state of each partition.

        `"config"` are the settings that were set, `"settings"` all that hold.
        """
        self.refresh()
        config = self.config
        return {
            "name": config.name,
            "id": config.id,
            "kind": "table" if config.table else "stream",
            "schema": {field.name: str(field.type) for field in config.schema},
            "key": list(config.key),
            "time": config.time,
            "durability": config.durability,
            "config": dict(config.config),
            "settings": config.settings.by_name(),
            "directory": self.directory,
            "generation": config.generation,
            "partitions": [
                self._describe_partition(index, config.generation)
                for index in range(config.partitions)
            ],
            "older": [
                {
                    "generation": each.number,
                    "partitions": [
                        self._describe_partition(index, each.number)
                        for index in range(each.partitions)
                    ],
                }
                for each in config.older
            ],
        }

    def refreshed(self) -> TopicConfig:
        """Return the configuration as it is now."""
        self.refresh()
        return self.config

    def refresh(self) -> None:
        """Take note of what others altered, and of other generations."""
        schema = self.config.schema
        self.config = self._read_config()
        self.settings.known = self.config.settings
        if not self.config.schema.equals(schema):
            for partition in self._partitions.values():
                partition.adopt(self.config.stored_schema)

    def _read_config(self) -> TopicConfig:
        """Return what `topic.json` says now."""
        path = f"{self.directory}/topic.json"
        with suppress(FileNotFoundError):  # deleted: the next append says so
            content = self._storage.read_file(path)
            if content != self._content:
                self._latest_config = TopicConfig.from_file(content, path)
                self._content = content
        return self._latest_config

    def _make_durable(self) -> None:
        """Make durable what is known of the topic, before a segment relies on it.

        Another process may just have put its `topic.json` in place, or have died then: a power
        cut would take it back, and with it a column, a generation or the whole topic.
        """
        if self._durable_content != self._content:
            self._storage.sync_directory(self.directory)
            self._durable_content = self._content

    def _latest_of(self, rows: pa.Table) -> pa.Table:
        """Return the latest of these rows of each key, tombstones among them."""
        keys = {name: one_form(rows.column(name)) for name in self.config.key}
        numbered = pa.table({**keys, "_row": np.arange(rows.num_rows)})
        grouped = numbered.group_by(list(self.config.key), use_threads=False)
        last = grouped.aggregate([("_row", "max")]).column("_row_max")
        # A mask, chunk by chunk: the dictionaries of several frames may not fit into one.
        mask = np.zeros(rows.num_rows, np.bool_)
        mask[last.to_numpy()] = True
        return rows.filter(pa.array(mask))

    def _open_partition(self, generation: int, index: int) -> Partition:
        config = self.config
        directory = f"{self.directory}/{generation}/{index}"
        refuse_links(self._storage, self.directory, directory)
        return Partition(
            directory,
            config.stored_schema,
            storage=self._storage,
            clock=self._clock,
            durability=config.durability,
            settings=self.settings,
            name=partition_name(self.name, generation, index),
            time_column=config.time,
            ring=partial(self.bells.ring, self.bell(index)),
            cache=self._cache,
            on_sealed=partial(self._clean_later, index, generation),
            before_head=self._make_durable,
        )

    def _clean_later(self, index: int, generation: int) -> None:
        path = self.log_path
        settings = self.settings.known
        clean_later(self._storage, self._clock, path, self.name, index, generation, settings)

    def _stable_frames(self, index: int, generation: int) -> StableFrames:
        """Return the frames of a partition, gone through up to the last stable offset."""
        place = generation, index
        while True:
            frames = self._stable.get(place)
            if frames is None:
                partition = self.partition(index, generation)
                first = partition.settled_end
                frames = self._stable[place] = StableFrames(
                    partition, self._transactions, first, "read_committed", partial(int, first)
                )
            try:
                while frames.next() is not None:
                    pass
            except OffsetOutOfRangeError:
                # Rows that it had not seen yet were removed: they were decided, then.
                del self._stable[place]
            else:
                return frames

    def blocking_header(self, partition: int, generation: int | None = None) -> FrameHeader | None:
        """Return the first frame of the undecided transaction that stops readers; `None`: none."""
        generation = self.config.generation if generation is None else generation
        blocking = self._stable_frames(partition, generation).blocking()
        return None if blocking is None else blocking.header

    def _describe_partition(self, index: int, generation: int) -> dict[str, object]:
        partition = self.partition(index, generation)
        frames = self._stable_frames(index, generation)
        segments = partition.segments()
        described: dict[str, object] = {
            "partition": index,
            "first_offset": partition.first_offset,
            "stable_end": frames.offset,
            "durable_end": partition.durable_end,
            "written_end": partition.written_end,
            "segments": len(segments),
            "bytes": sum(size for _, size in segments),
            "open_transaction": None,
        }
        blocking = frames.blocking()
        if blocking is not None:
            header = blocking.header
            described["open_transaction"] = {
                "owner": self._transactions.owner(header.owner_id),
                "epoch": header.epoch,
                "number": header.transaction,
                "since_us": header.appended_us,
            }
        return described
