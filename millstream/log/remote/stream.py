"""One stream of requests to a server: each waits for its answer."""

from __future__ import annotations

import time
import weakref
from contextlib import suppress

import pyarrow as pa
from pyarrow import flight

from millstream.errors import ProtocolError
from millstream.log.remote.messages import PROTOCOL, Answer, Request, decode_answer, encode
from millstream.log.remote.rows import BYTES_SCHEMA, bytes_batch

NEVER_S = float("inf")


class StreamBrokenError(Exception):
    """Raised when a stream ended before its answer came: nobody knows what became of it."""


class Stream:
    """An open stream; one thread at a time asks.

    Parameters
    ----------
    client
        Whose connection it uses.
    options
        Of the call, among them what authenticates it.
    """

    def __init__(self, client: flight.FlightClient, options: flight.FlightCallOptions) -> None:
        descriptor = flight.FlightDescriptor.for_command(PROTOCOL)
        self._writer, self._reader = client.do_exchange(descriptor, options)
        # A writer that is collected open, or left at the end of the process, waits for the
        # server with the GIL held.
        self._end = weakref.finalize(self, _end, self._writer, self._reader)
        self._has_begun = False
        self.deadline_s = NEVER_S
        """By the monotonic clock: when the request under way has taken too long."""
        self.idle_since_s = time.monotonic()
        """When the last answer came."""

    def ask(
        self, request: Request, body: pa.Buffer | None, timeout_s: float
    ) -> tuple[Answer, pa.RecordBatch | None]:
        """Send a request and return its answer, and the bytes that came with it.

        Raises
        ------
        StreamBrokenError
            Where none came in time, or the server is gone. This stream is of no more use.
        pyarrow.ArrowException
            Likewise, as Flight has it.
        """
        self.deadline_s = time.monotonic() + timeout_s
        try:
            message = pa.py_buffer(encode(request))
            if body is None:
                self._writer.write_metadata(message)
            else:
                if not self._has_begun:
                    self._writer.begin(BYTES_SCHEMA)
                    self._has_begun = True
                self._writer.write_with_metadata(bytes_batch(body), message)
            try:
                chunk = self._reader.read_chunk()
            except StopIteration:
                text = "the server ended the stream"
                raise StreamBrokenError(text) from None
        finally:
            self.deadline_s = NEVER_S
            self.idle_since_s = time.monotonic()
        if chunk.app_metadata is None:
            text = "bytes came without an answer"
            raise ProtocolError(text)
        return decode_answer(memoryview(chunk.app_metadata)), chunk.data

    def cancel(self) -> None:
        """Break off what another thread is asking; it ends the stream then."""
        with suppress(pa.ArrowException, OSError):
            self._reader.cancel()

    def close(self) -> None:
        """End the stream; nobody asks."""
        self._end()


def _end(writer: flight.FlightStreamWriter, reader: flight.FlightStreamReader) -> None:
    with suppress(pa.ArrowException, OSError):
        writer.done_writing()
    with suppress(pa.ArrowException, OSError):
        # Nothing is under way, or its answer is not wanted: closing must not wait for it.
        reader.cancel()
    with suppress(pa.ArrowException, OSError):
        writer.close()
