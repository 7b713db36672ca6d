"""Whether somebody speaks gRPC at an address: asked before a client that would wait for minutes."""

from __future__ import annotations

import socket

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How every HTTP/2 client begins: the preface, then settings, here none."""
FRAME_HEADER_BYTES = 9
SETTINGS = 4


def why_no_grpc(address: str, timeout_s: float) -> str | None:
    """Return why no gRPC server can be talked to at `host:port`; `None`: one answers.

    Any HTTP/2 server passes. One that answers in another way is mostly the wrong port of the
    right machine.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        return "an address is host:port"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as connection:
            connection.sendall(HELLO)
            header = _received(connection)
    except OSError as error:
        return str(error)
    if len(header) < FRAME_HEADER_BYTES:
        return "the connection was closed at once"
    if header[3] != SETTINGS:
        return f"what answers there speaks no gRPC: {header!r}"
    return None


def _received(connection: socket.socket) -> bytes:
    """Return the header of the first frame, or less where the other end closed before."""
    header = b""
    while len(header) < FRAME_HEADER_BYTES:
        more = connection.recv(FRAME_HEADER_BYTES - len(header))
        if not more:
            break
        header += more
    return header
