"""Rows sent one by one: gathered, appended by who fills a batch or by an alarm, then synced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypedDict

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import MillstreamError, OptionError
from millstream.log.row_buffer import RowBuffer, RowHeaders
from millstream.log.topic_config import TopicConfig

LINGER_MS = 5.0
BATCH_ROWS = 8_192
BATCH_BYTES = 1024 * 1024
GRACE_US = 1_000


class Gathering(TypedDict, total=False):
    """When rows that are sent one by one are appended.

    Attributes
    ----------
    linger_ms
        After so long at the latest; 5 by default.
    batch_rows, batch_bytes
        When there are so many (8,192), or about so many bytes (1 MiB).
    """

    linger_ms: float
    batch_rows: int
    batch_bytes: int


class Sender:
    """What a producer needs for `send`.

    Parameters
    ----------
    config
        Of the topic.
    clock
        Its alarm appends rows that waited long enough, in a thread of its own.
    append
        Appends a batch to a partition, or by key.
    sync
        Makes all that was appended durable.
    linger_ms
        How long rows are gathered at most.
    batch_rows, batch_bytes
        A batch is appended when it has so many rows, or about so many bytes.
    """

    def __init__(
        self,
        config: TopicConfig,
        clock: Clock,
        append: Callable[[pa.RecordBatch, int | None], None],
        sync: Callable[[], None],
        *,
        linger_ms: float = LINGER_MS,
        batch_rows: int = BATCH_ROWS,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        if not (linger_ms >= 0 and batch_rows > 0 and batch_bytes > 0):
            message = (
                "linger_ms is 0 or more, batch_rows and batch_bytes are above 0; got "
                f"{linger_ms}, {batch_rows}, {batch_bytes}"
            )
            raise OptionError(message)
        self._config = config
        self._append = append
        self._sync = sync
        self._linger_us = int(linger_ms * 1_000)
        self._batch_rows = self._rows_max = batch_rows
        self._batch_bytes = batch_bytes
        self._buffers: dict[int | None, RowBuffer] = {}
        self._unsynced: list[Future[None]] = []
        self._error: BaseException | None = None
        self._is_due = False
        self._alarm = clock.alarm(self._on_alarm)
        self.guard = self._alarm.guard
        """Held by whoever appends: the alarm's thread is one of them."""

    def send(
        self,
        row: Mapping[str, Any],
        partition: int | None,
        timestamp: Any,
        headers: RowHeaders | None,
    ) -> Future[None]:
        """Take a row; see `Producer.send`."""
        with self.guard:
            if self._error is not None:
                self.tell()
            buffer = self._buffers.get(partition)
            if buffer is None:
                buffer = self._buffers[partition] = RowBuffer(self._config)
            count = buffer.add(row)
            if timestamp is not None or headers is not None:
                buffer.annotate(timestamp, headers)
            sent = buffer.sent
            if count >= self._rows_max or self._is_due:
                self._is_due = False
                self._append_rows(partition, buffer)
                if self._unsynced:
                    self._alarm.set(0)
            elif count == 1:
                self._alarm.set(self._linger_us)
            return sent

    @property
    def is_used(self) -> bool:
        """Whether a row was ever sent."""
        return bool(self._buffers)

    def append_gathered(self) -> None:
        """Append all rows that were sent; inside the guard."""
        for partition, buffer in self._buffers.items():
            if len(buffer):
                self._append_rows(partition, buffer)

    def adopt(self, config: TopicConfig) -> None:
        """Take rows of more columns from now on; what was sent is appended before."""
        with self.guard:
            self.append_gathered()
            self._config = config
            self._buffers.clear()

    def take_unsynced(self) -> list[Future[None]]:
        """Return what is to be told once all that was appended is durable; inside the guard."""
        unsynced, self._unsynced = self._unsynced, []
        return unsynced

    def tell(self) -> None:
        """Raise the error that nobody was there to hear; once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Let the alarm ring no more."""
        self._alarm.close()

    def _append_rows(self, partition: int | None, buffer: RowBuffer) -> None:
        batch, sent = buffer.take()
        try:
            self._append(batch, partition)
        except BaseException as error:
            sent.set_exception(error)
            raise
        row_bytes = max(batch.nbytes // batch.num_rows, 1)
        self._rows_max = max(min(self._batch_rows, self._batch_bytes // row_bytes), 1)
        if self._config.durability == "os":
            sent.set_result(None)
        else:
            self._unsynced.append(sent)

    def _on_alarm(self) -> None:
        """Append what waited, and make all durable; whoever sends or flushes next hears of it."""
        if not self._unsynced and not any(map(len, self._buffers.values())):
            return  # somebody flushed
        if not self._is_due and not self._unsynced:
            # Who sends row after row appends them itself with the next one: two threads that take
            # turns with the interpreter are slower than one. Who rests is helped out.
            self._is_due = True
            self._alarm.set(GRACE_US)
            return
        self._is_due = False
        unsynced: list[Future[None]] = []
        try:
            with self.guard:
                try:
                    self.append_gathered()
                finally:
                    unsynced = self.take_unsynced()
            if unsynced:
                self._sync()
        except (MillstreamError, OSError) as error:
            fail(unsynced, error)
            with self.guard:
                self._error = self._error or error
        else:
            succeed(unsynced)


def succeed(futures: Iterable[Future[None]]) -> None:
    """Tell that these rows are durable."""
    for each in futures:
        if not each.done():
            each.set_result(None)


def fail(futures: Iterable[Future[None]], error: BaseException) -> None:
    """Tell that these rows may not be durable."""
    for each in futures:
        if not each.done():
            each.set_exception(error)
