"""A client's connection to a served log: streams that are used again, and what is tried again."""

from __future__ import annotations

import random
import threading
import time
import weakref
from dataclasses import dataclass, field

import pyarrow as pa
from pyarrow import flight

from millstream.errors import AuthenticationError, MillstreamError, RemoteLogError
from millstream.log.remote.address import Address
from millstream.log.remote.messages import Answer, Failure, Request, error_of
from millstream.log.remote.stream import Stream, StreamBrokenError
from millstream.log.remote.token import HEADER, header_value

TIMEOUT_S = 30.0

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 1.0

IDLE_S = 1.0
"""A stream that nobody used for so long is ended: a server that is closed waits for it."""

WATCH_S = 0.25
"""How often somebody looks whether a request takes too long, or a stream is idle."""

KEEPALIVE_MS = 5_000
"""A server that does not answer a ping for so long is gone: else a write to it blocks for ever."""

_CHANNEL: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
    # Connections of other clients have waits of their own, of up to two minutes.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How a client reaches a served log.

    Parameters
    ----------
    token
        What the server asks for; `None`: nothing.
    certificates
        Of those whom the client trusts, as PEM; `None`: those that the machine trusts.
    timeout_s
        How long a request is tried, again and again where the connection is lost.
    """

    token: str | None = field(default=None, repr=False)
    certificates: bytes | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S


class Connection:
    """Asks the server at `address`; any thread may.

    Nothing is sent before the first request.
    """

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        self.address = address
        self._options = options
        headers = []
        if options.token is not None:
            headers.append((HEADER.encode(), header_value(options.token)))
        self._call_options = flight.FlightCallOptions(headers=headers)
        self._lock = threading.Lock()
        self._client: flight.FlightClient | None = None
        self._free: list[Stream] = []
        self._streams: set[Stream] = set()
        self._watch: threading.Thread | None = None

    def ask(
        self,
        request: Request,
        body: pa.Buffer | None = None,
        *,
        more_s: float = 0.0,
        repeated: Request | None = None,
    ) -> tuple[Answer, pa.RecordBatch | None]:
        """Return the server's answer, and the bytes that came with it.

        The request must be one that may be carried out twice: it is sent again where the
        connection is lost.

        Parameters
        ----------
        more_s
            How long the server may wait on purpose.
        repeated
            What is sent where `request` was sent before, and it is not known what became of it.

        Raises
        ------
        MillstreamError
            What the server raised.
        RemoteLogError
            Where it was not reached in time.
        AuthenticationError
            Where the server refuses the token, or the client the server's certificate.
        """
        timeout_s = self._options.timeout_s + more_s
        deadline_s = time.monotonic() + timeout_s
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                answer, batch = self._ask_once(request, body, deadline_s - time.monotonic())
            except (StreamBrokenError, pa.ArrowException, OSError) as error:
                self._refuse_final(error)
                left_s = deadline_s - time.monotonic()
                if left_s <= backoff_s:
                    raise RemoteLogError(self._unreachable(timeout_s, error)) from error
                request = repeated or request
            else:
                if isinstance(answer, Failure):
                    raise error_of(answer)
                return answer, batch
            # Whom one server served do not all come back at the same time.
            time.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def close(self) -> None:
        """End all streams; the next request opens one again."""
        with self._lock:
            streams, self._free = self._free, []
            self._streams.difference_update(streams)
            client, self._client = self._client, None
        for stream in streams:
            stream.close()
        if client is not None:
            client.close()

    def _ask_once(
        self, request: Request, body: pa.Buffer | None, timeout_s: float
    ) -> tuple[Answer, pa.RecordBatch | None]:
        stream = self._take()
        try:
            answer, batch = stream.ask(request, body, timeout_s)
        except BaseException as error:
            self._drop(stream, is_gone=not isinstance(error, MillstreamError))
            raise
        with self._lock:
            self._free.append(stream)
        return answer, batch

    def _take(self) -> Stream:
        """Return a stream that nobody else uses."""
        with self._lock:
            if self._free:
                return self._free.pop()
            client = self._client
        if client is None:
            client = flight.FlightClient(
                self.address.flight_location,
                tls_root_certs=self._options.certificates,
                generic_options=_CHANNEL,
            )
        stream = Stream(client, self._call_options)
        with self._lock:
            self._client = client
            self._streams.add(stream)
            if self._watch is None:
                self._watch = threading.Thread(
                    target=_watch, args=(weakref.ref(self),), name="log-connection", daemon=True
                )
                self._watch.start()
        return stream

    def _drop(self, stream: Stream, *, is_gone: bool) -> None:
        """Give up a stream that broke, and with it, where the server is gone, all idle ones."""
        with self._lock:
            self._streams.discard(stream)
            others = self._free if is_gone else []
            self._streams.difference_update(others)
            if is_gone:
                self._free = []
                self._client = None
        for each in (stream, *others):
            each.close()

    def look_after(self) -> bool:
        """Break off what takes too long, end what is idle; `False`: there are no streams."""
        now_s = time.monotonic()
        with self._lock:
            idle = [each for each in self._free if now_s - each.idle_since_s > IDLE_S]
            self._free = [each for each in self._free if each not in idle]
            self._streams.difference_update(idle)
            late = [each for each in self._streams if each.deadline_s < now_s]
            has_streams = bool(self._streams)
            if not has_streams:
                self._watch = None
        for each in late:
            each.cancel()
        for each in idle:
            each.close()
        return has_streams

    def _refuse_final(self, error: Exception) -> None:
        """Raise where trying again would not help."""
        text = str(error)
        if isinstance(error, flight.FlightUnauthenticatedError | flight.FlightUnauthorizedError):
            message = (
                f"the log at {self.address} refuses this client: {_first_line(error)}; open it "
                "with the server's token (token=, or MILLSTREAM_TOKEN)"
            )
            raise AuthenticationError(message) from error
        if "CERTIFICATE_VERIFY_FAILED" in text or "Ssl handshake failed" in text:
            message = (
                f"no trust in the server at {self.address}: {_first_line(error)}; give the "
                "certificate that signed the server's (certificates=, or MILLSTREAM_TLS_ROOTS), "
                "and use the host name that it is for"
            )
            raise AuthenticationError(message) from error
        if isinstance(error, flight.FlightServerError) and "a stream is opened with" in text:
            message = f"the log at {self.address}: {_first_line(error)}"
            raise RemoteLogError(message) from error

    def _unreachable(self, timeout_s: float, error: Exception) -> str:
        return (
            f"the log at {self.address} did not answer for {timeout_s:g} s: {_first_line(error)}; "
            "is `millstream log serve` running there, and is it encrypted as the address says?"
        )


def _watch(connection: weakref.ref[Connection]) -> None:
    """Look after a connection's streams until there are none; holds none of them itself."""
    while True:
        time.sleep(WATCH_S)
        found = connection()
        if found is None or not found.look_after():
            return
        del found


def _first_line(error: Exception) -> str:
    """Return what an error says without gRPC's particulars."""
    text = str(error).partition(". gRPC client debug context")[0]
    return text.splitlines()[0][:300] if text else type(error).__name__
