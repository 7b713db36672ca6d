"""Producers and consumers for asyncio: the loop is never held up by the disk.

Whatever may wait runs in a thread of the producer's or consumer's own. Rows that are sent are
gathered in the loop's thread and leave it as whole batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import pyarrow as pa

from millstream.log.consumer import Consumer
from millstream.log.producer import Producer
from millstream.log.row_buffer import RowBuffer, RowHeaders
from millstream.log.sender import BATCH_ROWS, LINGER_MS, Gathering

Result = TypeVar("Result")

POLL_US = 500_000
"""So long a poll waits: who is cancelled is let go after it at the latest."""


class AsyncProducer:
    """Appends to one topic from an event loop; made by `Log.async_producer`.

    Parameters
    ----------
    producer
        Does the work; nobody else may use it.
    gathering
        As for `Log.producer`.

    Examples
    --------
    >>> async with log.async_producer("flights") as producer:  # doctest: +SKIP
    ...     await producer.send({"flight": 1545, "origin": "EWR"})
    """

    def __init__(self, producer: Producer, **gathering: Unpack[Gathering]) -> None:
        self._producer = producer
        self._linger_s = gathering.get("linger_ms", LINGER_MS) / 1_000
        self._batch_rows = gathering.get("batch_rows", BATCH_ROWS)
        self._buffer = RowBuffer(producer.config)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="millstream-producer")
        self._sent: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def send(
        self,
        row: Mapping[str, Any] | None = None,
        /,
        *,
        timestamp: Any = None,
        headers: RowHeaders | None = None,
        **values: Any,
    ) -> asyncio.Future[None]:
        """Take a row; see `Producer.send`.

        Returns at once, unless a batch is full: then when that one was appended. What is returned
        is done when the row is durable, or has the error; `flush` tells it, too.
        """
        self._tell()
        count = self._buffer.add(values if row is None else row)
        if timestamp is not None or headers is not None:
            self._buffer.annotate(timestamp, headers)
        if self._sent is None:
            loop = asyncio.get_running_loop()
            self._sent = loop.create_future()
            self._sent.add_done_callback(_heard)
            self._alarm = loop.call_later(self._linger_s, self._append_gathered)
        sent = self._sent
        if count >= self._batch_rows:
            task = self._append_gathered()
            if task is not None:
                await asyncio.shield(task)
        return sent

    async def append(self, rows: pa.RecordBatch | pa.Table, **options: Any) -> None:
        """Append rows behind those that were sent; see `Producer.append`."""
        self._append_gathered()
        await self._run(lambda: self._producer.append(rows, **options))

    async def flush(self) -> None:
        """Return when every row appended or sent so far is durable; see `Producer.flush`."""
        self._append_gathered()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._run(self._producer.flush)
        self._tell()

    @property
    def sequence(self) -> int:
        """The number of the last append of a named producer; see `Producer.sequence`."""
        return self._producer.sequence

    async def stored_sequences(self) -> list[int]:
        """Return what each partition has of a named producer; see `Producer.stored_sequences`."""
        return await self._run(self._producer.stored_sequences)

    async def close(self) -> None:
        """Flush, and end the thread."""
        try:
            await self.flush()
        finally:
            await self._run(self._producer.close)
            self._pool.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _append_gathered(self) -> asyncio.Task[None] | None:
        """Let the thread append and sync what was sent; in the order of the calls."""
        if self._alarm is not None:
            self._alarm.cancel()
        sent, self._sent = self._sent, None
        if sent is None:
            return None
        buffer, self._buffer = self._buffer, RowBuffer(self._producer.config)

        def work() -> None:
            batch, _ = buffer.take()
            self._producer.append(batch)
            self._producer.flush()

        task = asyncio.get_running_loop().create_task(self._finish(sent, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, sent: asyncio.Future[None], work: Callable[[], None]) -> None:
        try:
            await self._run(work)
        except Exception as error:
            self._error = self._error or error
            if not sent.done():
                sent.set_exception(error)
        else:
            if not sent.done():
                sent.set_result(None)

    def _tell(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def batches_of(consumer: Consumer) -> AsyncIterator[pa.RecordBatch]:
    """Yield what a consumer reads, without end; it is polled in a thread of its own."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="millstream-consumer") as pool:
        while True:
            batch = await loop.run_in_executor(pool, consumer.poll, POLL_US)
            if batch is not None:
                yield batch


def _heard(sent: asyncio.Future[None]) -> None:
    """Look at an error, which `flush` tells in any case: nobody has to await each row."""
    if not sent.cancelled():
        sent.exception()
