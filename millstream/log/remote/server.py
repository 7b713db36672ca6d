"""Serves a log over Arrow Flight: one more process beside those that use the directory.

    client ══ DoExchange ══▶ a thread: request ─▶ LogService ─▶ answer ══▶ client

A stream carries requests one after another, each with its answer. Nothing of a client's lives
here but its streams: another server on the same directory can go on in this one's place.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import flight

from millstream.errors import LogError, MillstreamError, ProtocolError, RemoteLogError
from millstream.log.log import Log
from millstream.log.remote.frame_feed import FrameFeeds
from millstream.log.remote.messages import (
    PROTOCOL,
    Answer,
    decode_request,
    encode,
    failure_of,
)
from millstream.log.remote.rows import BYTES_SCHEMA, bytes_batch
from millstream.log.remote.service import LogService
from millstream.log.remote.token import HEADER, check_token, header_value

STREAMS_MAX = 1_024
"""Each has a thread."""

CLOSE_TIMEOUT_S = 5.0
"""Clients end an idle stream sooner than this."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an encrypted server shows to its clients, and its secret; both as PEM."""

    certificate: bytes
    key: bytes


class LogServer:
    """Serves from the moment it is made until it is closed.

    Parameters
    ----------
    open_log
        Returns the log that is served, opened anew with each call.
    host, port
        Where to listen; port 0: any that is free.
    token
        Clients without it are refused; `None`: anybody may do anything.
    certificate
        `None`: nothing is encrypted.

    Raises
    ------
    RemoteLogError
        When it cannot listen there.
    """

    def __init__(
        self,
        open_log: Callable[[], Log],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self._closing = threading.Event()
        self._streams = 0
        self._busy = 0
        self._changed = threading.Condition()
        check_token(token)
        self._service = LogService(open_log, self._closing.is_set)
        bracketed = f"[{host}]" if ":" in host else host
        scheme = "grpc+tls" if certificate is not None else "grpc"
        try:
            self._server = _FlightServer(self, scheme, bracketed, port, token, certificate)
        except (pa.ArrowException, OSError) as error:
            message = (
                f"cannot serve a log at {bracketed}:{port}: {error}; is the port taken, the "
                "address this machine's, the certificate's key its own?"
            )
            raise RemoteLogError(message) from error
        self.address = f"{scheme}://{bracketed}:{self._server.port}"
        """What clients open, where they reach the host by the same name."""

    def close(self) -> None:
        """Answer what was asked, and end; idempotent.

        A thread that writes to a client that stands still is left behind: nothing can break off
        its writing, which ends with the client's process or its connection.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, CLOSE_TIMEOUT_S)
        self._service.close()
        # Flight waits for every stream, without end: for idle ones until their clients end them.
        closer = threading.Thread(target=self._server.shutdown, daemon=True)
        closer.start()
        closer.join(max(deadline_s - time.monotonic(), 0))

    def serve_stream(
        self, reader: flight.MetadataRecordBatchReader, writer: flight.MetadataRecordBatchWriter
    ) -> None:
        """Answer the requests of one stream until its client ends it."""
        feeds = FrameFeeds()
        with self._changed:
            if self._streams >= STREAMS_MAX:
                message = f"the log is served to {STREAMS_MAX} streams already; try again later"
                raise flight.FlightUnavailableError(message)
            self._streams += 1
        try:
            writer.begin(BYTES_SCHEMA)
            while not self._closing.is_set():
                try:
                    chunk = reader.read_chunk()
                except StopIteration:
                    return
                self._serve_request(chunk, feeds, writer)
        finally:
            with self._changed:
                self._streams -= 1
                self._changed.notify_all()

    def _serve_request(
        self,
        chunk: flight.FlightStreamChunk,
        feeds: FrameFeeds,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        with self._changed:
            self._busy += 1
        try:
            answer, body = self._answer(chunk, feeds)
            if body is None:
                writer.write_metadata(pa.py_buffer(encode(answer)))
            else:
                writer.write_with_metadata(bytes_batch(body), pa.py_buffer(encode(answer)))
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _answer(
        self, chunk: flight.FlightStreamChunk, feeds: FrameFeeds
    ) -> tuple[Answer, pa.Buffer | None]:
        try:
            if chunk.app_metadata is None:
                message = "rows came without a request"
                raise ProtocolError(message)
            request = decode_request(memoryview(chunk.app_metadata))
            return self._service.answer(request, chunk.data, feeds)
        except MillstreamError as error:
            return failure_of(error), None
        except Exception as error:
            # Whatever it is, the client is to hear of it, and the others are served on.
            message = f"the server failed: {type(error).__name__}: {error}"
            return failure_of(LogError(message)), None


class _FlightServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """The Flight side of a `LogServer`."""

    def __init__(
        self,
        server: LogServer,
        scheme: str,
        host: str,
        port: int,
        token: str | None,
        certificate: Certificate | None,
    ) -> None:
        certificates = []
        if certificate is not None:
            certificates.append((certificate.certificate, certificate.key))
        super().__init__(
            f"{scheme}://{host}:{port}",
            tls_certificates=certificates,
            middleware={"token": _TokenCheck(token)},
        )
        self._log_server = server

    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        """Serve one stream."""
        if descriptor.command != PROTOCOL:
            message = (
                f"a stream is opened with {PROTOCOL.decode()!r}; got {descriptor.command[:80]!r}: "
                "update the older of client and server"
            )
            raise flight.FlightServerError(message)
        self._log_server.serve_stream(reader, writer)


class _TokenCheck(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Refuses calls that do not bring the token, before anything of them is read."""

    def __init__(self, token: str | None) -> None:
        super().__init__()
        self._expected = None if token is None else header_value(token)

    def start_call(
        self, info: flight.CallInfo, headers: dict[str, list[str | bytes]]
    ) -> flight.ServerMiddleware | None:
        """Raise `FlightUnauthenticatedError` where the token is missing or wrong."""
        if self._expected is None:
            return None
        given = b""
        for name, values in headers.items():
            if name.lower() == HEADER and values:
                value = values[0]
                given = value if isinstance(value, bytes) else value.encode()
        # In constant time: how long a refusal takes says nothing of the token.
        if not hmac.compare_digest(given, self._expected):
            word = "another token than this" if given else "no token"
            message = f"the client has {word}"
            raise flight.FlightUnauthenticatedError(message)
        return None
