from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow import flight

from millstream.runtime.hosts.grpc_probe import why_no_grpc


@contextmanager
def answering(reply: bytes | None) -> Iterator[str]:
    """Answer one connection with `reply`, or keep silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                if reply is None:
                    connection.recv(64)
                else:
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_grpc_server_passes() -> None:
    with flight.FlightServerBase("grpc://127.0.0.1:0") as server:
        assert why_no_grpc(f"127.0.0.1:{server.port}", 5) is None
        assert why_no_grpc(f"localhost:{server.port}", 5) is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n", "no gRPC: b'HTTP/1.0 '"),
        (b"", "closed at once"),
        (b"\0\0", "closed at once"),
        (None, "timed out"),
    ],
)
def test_what_is_no_grpc_server_is_told(reply: bytes | None, reason: str) -> None:
    with answering(reply) as address:
        assert reason in str(why_no_grpc(address, 0.2))


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in str(why_no_grpc(f"127.0.0.1:{port}", 5))


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", "host:0", "host:65536"])
def test_an_address_is_host_and_port(address: str) -> None:
    assert why_no_grpc(address, 5) == "an address is host:port"
