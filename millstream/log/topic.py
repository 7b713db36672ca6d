"""A topic: its partitions, readers of them, and its rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import LogError, OffsetOutOfRangeError, OptionError
from millstream.log.background_cleaning import clean_later
from millstream.log.bells import Bells, bell_of
from millstream.log.cleaner import Cleaner, Cleaning, Committed
from millstream.log.columns import OPERATION_COLUMN
from millstream.log.erasure import EraseJournal, Eraser, Erasure, fitted_keys
from millstream.log.extras import import_extra
from millstream.log.frame_header import FrameHeader
from millstream.log.latest_rows import one_form
from millstream.log.links import refuse_links
from millstream.log.partition import Partition
from millstream.log.projection import READABLE_FIELDS, readable_schema
from millstream.log.reader import Isolation, PartitionReader, StableFrames
from millstream.log.scan import Bound, Scan
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.log.tier.cache import SegmentCache
from millstream.log.topic_card import topic_html
from millstream.log.topic_config import TOMBSTONE, TopicConfig, check_columns
from millstream.log.transactions import Transactions
from millstream.storage import Storage

CLEANER_TIMEOUT_US = 10_000_000
if TYPE_CHECKING:
    import pandas
    import polars
    from pyarrow.dataset import Dataset


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
        self.config = config
        self.directory = directory
        self.settings = LiveSettings(config.settings, self._read_settings)
        self._storage = storage
        self._clock = clock
        self._transactions = transactions
        self._bells: Bells | None = None
        path = directory.rpartition("/topics/")[0]
        self._cache = SegmentCache(storage, path, lambda: self.settings.known.remote_cache_bytes)
        self._partitions: dict[int, Partition] = {}
        self._stable: dict[int, StableFrames] = {}

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
            path = self.directory.rpartition("/topics/")[0]
            self._bells = Bells(path, self._storage, self._clock)
        return self._bells

    def bell(self, partition: int) -> int:
        """Return the number of a partition's bell."""
        return bell_of(self.config.id, partition)

    def partition(self, index: int) -> Partition:
        """Return partition `index`, from 0; raises `OptionError` where there is none."""
        if not 0 <= index < self.partitions:
            message = f"topic {self.name!r} has partitions 0 to {self.partitions - 1}; got {index}"
            raise OptionError(message)
        found = self._partitions.get(index)
        if found is None:
            found = self._partitions[index] = self._open_partition(index)
        return found

    def reader(
        self,
        partition: int,
        *,
        offset: int | None = None,
        columns: Sequence[str] | None = None,
        isolation: Isolation = "read_committed",
        verify: bool = True,
        where: object = None,
        skips_only: bool = False,
        time_column: str | None = None,
    ) -> PartitionReader:
        """Return a reader of one partition from `offset` on; see `PartitionReader`.

        By default it starts with the first row that is kept.
        """
        found = self.partition(partition)
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
            stable_end=lambda: self.stable_end(partition),
            verify=verify,
            where=where,
            skips_only=skips_only,
            time_column=time_column,
        )

    def stable_ends(self) -> list[int]:
        """Return each partition's last stable offset: where read-committed readers stop."""
        return [self._stable_frames(index).offset for index in range(self.partitions)]

    def stable_end(self, partition: int) -> int:
        """Return the last stable offset of one partition."""
        return self._stable_frames(partition).offset

    def durable_ends(self) -> list[int]:
        """Return for each partition the offset behind its last durable row."""
        return [self.partition(index).durable_end for index in range(self.partitions)]

    def offset_at_time(self, partition: int, timestamp_us: int) -> int:
        """Return the offset of a partition's first row of that time or later, else its end."""
        return self.partition(partition).offset_at_time(timestamp_us)

    def read(
        self,
        partition: int,
        start: int,
        end: int,
        *,
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
        reader = self.reader(partition, offset=start, columns=columns, isolation=isolation)
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
        for index in range(self.partitions):
            reader = self.reader(index, offset=self.partition(index).first_offset)
            batches = []
            while (batch := reader.read_table()) is not None:
                batches.append(batch)
            if batches:
                parts.append(self._latest_of(pa.Table.from_batches(batches)))
        return pa.concat_tables([self.schema.empty_table(), *parts])

    def clean(self, timeout_us: int = CLEANER_TIMEOUT_US) -> list[Cleaning]:
        """Remove and compact what the settings say, and return what was done to each partition.

        Readers and writers go on beside it. Raises `LockTimeoutError` where another cleaner is
        at work for longer than `timeout_us`.
        """
        if EraseJournal(self._storage, self.directory).read() is not None:
            self.erase(None, timeout_us)
        return [self._clean(index, timeout_us) for index in range(self.partitions)]

    def _clean(self, index: int, timeout_us: int) -> Cleaning:
        partition = self.partition(index)
        with partition.sealed.exclusive(timeout_us):
            cleaner = self._cleaner(index)
            partition.sealed.tidy()
            cleaner.roll_if_old()
            partition.sync_all()  # what was sealed just now is among the sealed ones then
            removed = cleaner.remove_expired()
            compacted = cleaner.compact()
            return Cleaning(self.name, index, *removed, *cleaner.move_out(), compacted)

    def erase(
        self, keys: pa.RecordBatch | pa.Table | None, timeout_us: int = CLEANER_TIMEOUT_US
    ) -> Erasure:
        """Remove all rows of `keys`, and of an erasure that was not done; see `Log.erase`."""
        if not self.config.key:
            message = f"topic {self.name!r} has no key columns; rows are erased by their keys"
            raise OptionError(message)
        schema = pa.schema([self.schema.field(name) for name in self.config.key])
        journal = EraseJournal(self._storage, self.directory)
        with self._storage.lock(f"{self.directory}/erase.lock", timeout_us):
            wanted = schema.empty_table() if keys is None else keys
            unfinished = journal.read()
            fitted = fitted_keys(wanted, schema, self.name)
            if unfinished is not None:
                both = pa.concat_tables([fitted, unfinished])
                fitted = fitted_keys(both, schema, self.name)
            rows = segments = 0
            if fitted.num_rows:
                journal.write(fitted)
                for index in range(self.partitions):
                    done = self._erase(index, fitted, timeout_us)
                    rows, segments = rows + done[0], segments + done[1]
                journal.remove()
        return Erasure(self.name, fitted.num_rows, rows, segments)

    def _erase(self, index: int, keys: pa.Table, timeout_us: int) -> tuple[int, int]:
        partition = self.partition(index)
        with partition.sealed.exclusive(timeout_us):
            partition.sealed.tidy()
            compression = self.settings.refresh().compression_type
            return Eraser(partition, keys, compression, self._clock).run()

    def clean_if_due(self, index: int, stopping: Callable[[], bool] = bool) -> None:
        """Clean one partition where that is worth its while, unless somebody is at it already.

        Raises
        ------
        LockTimeoutError
            Where another cleaner is at work.
        CleaningStoppedError
            Where `stopping`, asked now and then, said so.
        """
        partition = self.partition(index)
        with partition.sealed.exclusive(0):
            cleaner = self._cleaner(index, stopping)
            partition.sealed.tidy()
            partition.sync_all()
            cleaner.remove_expired()
            cleaner.compact(if_worthwhile=True)
            cleaner.move_out()

    def _cleaner(self, index: int, stopping: Callable[[], bool] = bool) -> Cleaner:
        committed = Committed(partial(self.stable_end, index), self._is_aborted)
        partition = self.partition(index)
        return Cleaner(partition, self.config.key, self._clock, committed, stopping)

    def _is_aborted(self, header: FrameHeader) -> bool:
        """Return whether the rows of a frame before the last stable offset were taken back."""
        if not header.transaction:
            return False
        owner = header.owner_id, header.epoch, header.transaction
        known = self._transactions.decision(*owner)
        if known == "undecided":
            # That all before the last stable offset is decided may be another process's finding.
            self._transactions.refresh()
            known = self._transactions.decision(*owner)
        if known == "undecided":
            message = (
                f"partition of topic {self.name!r}: transaction {owner} of a row at offset "
                f"{header.base_offset} is not decided; it is not cleaned"
            )
            raise LogError(message)
        return known == "aborted"

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
            "partitions": [self._describe_partition(index) for index in range(self.partitions)],
        }

    def refreshed(self) -> TopicConfig:
        """Return the configuration as it is now."""
        self.refresh()
        return self.config

    def refresh(self) -> None:
        """Take note of what others altered."""
        self.settings.refresh()

    def _read_settings(self) -> TopicSettings:
        """Return the settings as `topic.json` has them now."""
        path = f"{self.directory}/topic.json"
        with suppress(FileNotFoundError):  # deleted: the next append says so
            self._adopt(TopicConfig.from_json(self._storage.read_file(path), path))
        return self.config.settings

    def _adopt(self, config: TopicConfig) -> None:
        """Go by `config` from now on, the open partitions too."""
        self.config = config
        for partition in self._partitions.values():
            partition.adopt(config.stored_schema)

    def _latest_of(self, rows: pa.Table) -> pa.Table:
        """Return the latest rows of one partition; a key lies in one partition only."""
        keys = {name: one_form(rows.column(name)) for name in self.config.key}
        numbered = pa.table({**keys, "_row": np.arange(rows.num_rows)})
        grouped = numbered.group_by(list(self.config.key), use_threads=False)
        last = grouped.aggregate([("_row", "max")]).column("_row_max")
        # A mask, chunk by chunk: the dictionaries of several frames may not fit into one.
        mask = np.zeros(rows.num_rows, np.bool_)
        mask[last.to_numpy()] = True
        mask &= rows.column(OPERATION_COLUMN).to_numpy() != TOMBSTONE
        return rows.filter(pa.array(mask)).select(self.schema.names)

    def _open_partition(self, index: int) -> Partition:
        config = self.config
        directory = f"{self.directory}/{config.generation}/{index}"
        refuse_links(self._storage, self.directory, directory)
        return Partition(
            directory,
            config.stored_schema,
            storage=self._storage,
            clock=self._clock,
            durability=config.durability,
            settings=self.settings,
            name=f"{self.name}/{index}",
            time_column=config.time,
            ring=partial(self.bells.ring, self.bell(index)),
            cache=self._cache,
            on_sealed=partial(self._clean_later, index),
        )

    def _clean_later(self, index: int) -> None:
        path = self.directory.removesuffix(f"/topics/{self.config.id}")
        clean_later(self._storage, self._clock, path, self.name, index, self.settings.known)

    def _stable_frames(self, index: int) -> StableFrames:
        """Return the frames of a partition, gone through up to the last stable offset."""
        while True:
            frames = self._stable.get(index)
            if frames is None:
                partition = self.partition(index)
                first = partition.settled_end
                frames = self._stable[index] = StableFrames(
                    partition, self._transactions, first, "read_committed", partial(int, first)
                )
            try:
                while frames.next() is not None:
                    pass
            except OffsetOutOfRangeError:
                # Rows that it had not seen yet were removed: they were decided, then.
                del self._stable[index]
            else:
                return frames

    def blocking_header(self, partition: int) -> FrameHeader | None:
        """Return the first frame of the undecided transaction that stops readers; `None`: none."""
        blocking = self._stable_frames(partition).blocking()
        return None if blocking is None else blocking.header

    def _describe_partition(self, index: int) -> dict[str, object]:
        partition = self.partition(index)
        frames = self._stable_frames(index)
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
