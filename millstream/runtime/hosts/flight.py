"""Channels between processes: Arrow Flight streams, straight from worker to worker.

    worker i: outlet ─▶ queue (bounded in bytes) ─▶ sender thread ══ DoPut ══▶ worker j: inlet

Each channel (an exchange to one other worker) has a queue, a thread and a stream of its own:
where one has no room, the others go on. If exchanges shared a queue, rows for a stage that
waits would hold up those of the later stage that it waits for.

A stream names its job, attempt, exchange, sender and receiver; its messages are numbered. A
stream of another attempt is refused. A gap or a broken stream fails the attempt: nothing is
ever sent again.
"""

from __future__ import annotations

import hmac
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import pyarrow as pa
from pyarrow import flight

from millstream.errors import ExchangeError
from millstream.runtime.channels import Inlet, Outlet
from millstream.runtime.hosts.allocator import keep_freed_memory
from millstream.runtime.hosts.memory_channel import MemoryChannel
from millstream.runtime.messages import Barrier, Batch, End, Message, Watermark

_HEADER = struct.Struct("<qBqB")
"""Number of the message in its channel, kind, and what a message without rows says."""
_ROWS, _WATERMARK, _BARRIER, _END = range(4)
_NO_COLUMNS = pa.schema([])
CLOSE_TIMEOUT_S = 1.0
"""Less than a coordinator waits for an answer: the process is to be used again."""


class StreamName(msgspec.Struct, frozen=True):
    """What a stream says of itself before its first message.

    Parameters
    ----------
    attempt
        The epoch of the job's attempt.
    token
        The attempt's secret: only its own workers have it.
    """

    job: str
    attempt: int
    exchange: str
    sender: int
    receiver: int
    token: str


class FlightExchange:
    """All channels of one worker of an attempt; a process may hold one at a time.

    Parameters
    ----------
    job, attempt, worker, token
        Name the streams.
    limit_bytes
        The most that waits at each end of a channel.
    wake
        Called when a message came or there is room again.
    on_failure
        Called, from any thread, with what broke a stream.
    host
        The address that the other workers reach this one at.
    """

    def __init__(
        self,
        *,
        job: str,
        attempt: int,
        worker: int,
        token: str,
        limit_bytes: int,
        wake: Callable[[], None],
        on_failure: Callable[[ExchangeError], None],
        host: str = "127.0.0.1",
    ) -> None:
        keep_freed_memory()
        self.worker = worker
        self.closing = False
        self._name = StreamName(job, attempt, "", worker, worker, token)
        self._limit_bytes = limit_bytes
        self._wake = wake
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._received: dict[tuple[str, int], _Received] = {}
        self._own: dict[str, MemoryChannel] = {}
        self._clients: dict[int, flight.FlightClient] = {}
        self._senders: dict[tuple[str, int], _Sender] = {}
        self._server = _Server(self, host)
        self.location = f"grpc://{host}:{self._server.port}"

    def connect(self, locations: Sequence[str]) -> None:
        """Learn where the exchanges of all workers are."""
        for receiver, location in enumerate(locations):
            if receiver != self.worker:
                self._clients[receiver] = flight.FlightClient(location)

    def outlet(self, exchange: str, receiver: int) -> Outlet:
        """Return the sending end of a channel; to the worker itself it leads through memory."""
        if receiver == self.worker:
            return self._own_channel(exchange)
        with self._lock:
            key = exchange, receiver
            if key not in self._senders:
                name = msgspec.structs.replace(self._name, exchange=exchange, receiver=receiver)
                self._senders[key] = _Sender(self, self._clients[receiver], name, self._limit_bytes)
            return self._senders[key]

    def inlet(self, exchange: str, sender: int) -> Inlet:
        """Return the receiving end of a channel."""
        if sender == self.worker:
            return self._own_channel(exchange)
        return self.received(exchange, sender).channel

    def received(self, exchange: str, sender: int) -> _Received:
        """Return where messages of a channel arrive."""
        with self._lock:
            key = exchange, sender
            if key not in self._received:
                self._received[key] = _Received(self._limit_bytes, self._wake)
            return self._received[key]

    def check(self, name: StreamName) -> None:
        """Refuse a stream that is not from a worker of this attempt, or not for this one."""
        own = self._name
        if not hmac.compare_digest(name.token, own.token):
            message = f"a stream of job {name.job!r}, attempt {name.attempt}, has another token"
            raise flight.FlightUnauthenticatedError(message)
        expected = own.job, own.attempt, own.receiver
        if (name.job, name.attempt, name.receiver) != expected:
            message = (
                f"a stream for worker {name.receiver} of attempt {name.attempt} of {name.job!r}; "
                f"this is worker {own.receiver} of attempt {own.attempt} of {own.job!r}"
            )
            raise flight.FlightServerError(message)

    def fail(self, reason: str) -> None:
        """Report a broken stream, unless the exchange is being closed."""
        if not self.closing:
            message = f"the exchange of worker {self.worker} broke: {reason}"
            self._on_failure(ExchangeError(message))

    def wake(self) -> None:
        """Say that there is room again."""
        self._wake()

    def close(self) -> None:
        """End all threads and streams; what was not received is gone.

        A thread that waits for a worker that stands still is left behind: nothing can break off
        its writing, which ends with the other worker's process.
        """
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        self.closing = True
        with self._lock:
            received, senders = list(self._received.values()), list(self._senders.values())
        # These first: another worker's sender may wait for them while it is closed itself.
        for each in received:
            each.abandon()
        for sender in senders:
            sender.wake()
        for sender in senders:
            sender.join(deadline_s)
        # The server waits for its streams, whose senders may hang in another process.
        closer = threading.Thread(target=self._server.shutdown, daemon=True)
        closer.start()
        closer.join(max(deadline_s - time.monotonic(), 0))
        for client in self._clients.values():
            client.close()

    def _own_channel(self, exchange: str) -> MemoryChannel:
        with self._lock:
            if exchange not in self._own:
                self._own[exchange] = MemoryChannel(self._limit_bytes, self._wake, self._wake)
            return self._own[exchange]


class _Received:
    """The receiving end of a channel: the server's thread puts in, the worker takes out."""

    def __init__(self, limit_bytes: int, wake: Callable[[], None]) -> None:
        self.expected = 0
        self._room = threading.Event()
        self._abandoned = False
        self.channel = MemoryChannel(limit_bytes, self._room.set, wake)

    def put(self, message: Message) -> bool:
        """Put a message in, waiting for room; `False`: the exchange was closed meanwhile.

        While this waits, the stream is not read: that is how a sender learns to wait.
        """
        while isinstance(message, Batch) and not self.channel.has_room():
            self._room.clear()
            if self.channel.has_room() or self._abandoned:
                break
            self._room.wait()
        if self._abandoned:
            return False
        self.channel.send(message)
        return True

    def abandon(self) -> None:
        """Let a waiting thread go."""
        self._abandoned = True
        self._room.set()


class _Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Receives the streams of one exchange."""

    def __init__(self, exchange: FlightExchange, host: str) -> None:
        super().__init__(f"grpc://{host}:0")
        self._exchange = exchange

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Take one stream, message by message."""
        exchange = self._exchange
        name = msgspec.json.decode(descriptor.command, type=StreamName)
        exchange.check(name)
        received = exchange.received(name.exchange, name.sender)
        try:
            while True:
                try:
                    chunk = reader.read_chunk()
                except StopIteration:
                    if context.is_cancelled():
                        # A sender that died: gRPC ends the stream as if it had been closed.
                        exchange.fail(f"worker {name.sender} is gone, in the middle of a stream")
                    return
                number, message = _decoded(chunk)
                if number != received.expected:
                    reason = (
                        f"message {number} of worker {name.sender} came where "
                        f"{received.expected} was due"
                    )
                    exchange.fail(reason)
                    return
                received.expected += 1
                if not received.put(message):
                    return
        except Exception as error:
            exchange.fail(f"the stream from worker {name.sender} broke: {error}")


class _Sender:
    """The sending end of a channel to another worker, and the thread that sends."""

    def __init__(
        self,
        exchange: FlightExchange,
        client: flight.FlightClient,
        name: StreamName,
        limit_bytes: int,
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._name = name
        self._limit_bytes = limit_bytes
        self._waiting: deque[Message] = deque()
        # Each is written by one thread only, so that no lock is needed.
        self._queued_bytes = 0
        self._sent_bytes = 0
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._number = 0
        self._schema: pa.Schema | None = None
        self._writer: flight.FlightStreamWriter | None = None
        thread_name = f"send-{name.exchange}-{name.receiver}"
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        return self._queued_bytes - self._sent_bytes < self._limit_bytes

    def send(self, message: Message) -> None:
        self._queued_bytes += message.size_bytes
        self._waiting.append(message)
        self._ready.set()

    def wake(self) -> None:
        """Let the thread see that the exchange is being closed."""
        self._ready.set()

    def join(self, deadline_s: float) -> None:
        """Wait until the stream was ended; its receiver's answer is waited for by the thread."""
        self._ended.wait(max(deadline_s - time.monotonic(), 0))

    def _run(self) -> None:
        exchange = self._exchange
        try:
            while not exchange.closing:
                self._ready.wait()
                self._ready.clear()
                while self._waiting and not exchange.closing:
                    message = self._waiting.popleft()
                    self._send(message)
                    self._sent(message.size_bytes)
        except Exception as error:
            exchange.fail(
                f"the stream {self._name.exchange!r} to worker {self._name.receiver}: {error}"
            )
        writer = self._writer
        if writer is not None:
            # Without it the receiver's thread would wait for more, and its server for the thread.
            with suppress(pa.ArrowException, OSError):
                writer.done_writing()
        self._ended.set()
        if writer is not None:
            # Here and not when it is collected: a writer that was not closed closes itself then,
            # which waits for the receiver with the GIL held, in whatever thread that may be.
            with suppress(pa.ArrowException, OSError):
                writer.close()

    def _sent(self, size_bytes: int) -> None:
        self._sent_bytes += size_bytes
        # Asked after the count has changed: a worker that found no room before is woken.
        waiting_bytes = self._queued_bytes - self._sent_bytes
        if waiting_bytes < self._limit_bytes <= waiting_bytes + size_bytes:
            self._exchange.wake()

    def _send(self, message: Message) -> None:
        number = self._number
        self._number += 1
        if isinstance(message, Batch):
            writer = self._stream(message.rows.schema)
            writer.write_with_metadata(message.rows, _HEADER.pack(number, _ROWS, 0, 0))
        else:
            writer = self._stream(None)
            writer.write_metadata(pa.py_buffer(_encoded(number, message)))

    def _stream(self, schema: pa.Schema | None) -> flight.FlightStreamWriter:
        """Return a stream for rows of `schema`; `None`: any stream will do.

        A stream has one schema. Where rows of another come, the receiver has taken everything
        of the first stream before the next one begins.
        """
        writer = self._writer
        if writer is not None and (schema is None or schema.equals(self._schema)):
            return writer
        if writer is not None:
            writer.close()
        descriptor = flight.FlightDescriptor.for_command(msgspec.json.encode(self._name))
        self._schema = _NO_COLUMNS if schema is None else schema
        self._writer, _ = self._client.do_put(descriptor, self._schema)
        return self._writer


def _encoded(number: int, message: Message) -> bytes:
    """Return a message without rows."""
    match message:
        case Watermark(watermark_us=watermark_us, idle=idle):
            return _HEADER.pack(number, _WATERMARK, watermark_us, idle)
        case Barrier(checkpoint=checkpoint):
            return _HEADER.pack(number, _BARRIER, checkpoint, 0)
        case _:
            return _HEADER.pack(number, _END, 0, 0)


def _decoded(chunk: flight.FlightStreamChunk) -> tuple[int, Message]:
    """Return a message and its number."""
    number, kind, value, flag = _HEADER.unpack(chunk.app_metadata.to_pybytes())
    match kind:
        case 0:
            return number, Batch(chunk.data)
        case 1:
            return number, Watermark(value, bool(flag))
        case 2:
            return number, Barrier(value)
        case _:
            return number, End()
