"""`millstream log serve`: the log for clients on other machines."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import notes
from millstream.cli.options import LogOption, open_log
from millstream.errors import OptionError

if TYPE_CHECKING:
    from millstream.log.remote.server import Certificate

PORT = 8815


def serve(
    log: LogOption = None,
    *,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of the machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65_535)] = PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Holds the secret that clients must show; by default MILLSTREAM_TOKEN, else none.",
            dir_okay=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="The server's certificate (PEM).", dir_okay=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's key (PEM).", dir_okay=False)
    ] = None,
) -> None:
    """Serve the log over Arrow Flight, beside others that use the directory, until Ctrl-C."""
    from millstream.log import Log
    from millstream.log.remote.address import Address, is_address
    from millstream.log.remote.server import LogServer

    path = log or os.environ.get("MILLSTREAM_LOG") or "data"
    if is_address(path):
        message = f"{Address.parse(path)} is served already; name a directory with --log"
        raise OptionError(message)
    opened = open_log(path, create=True)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    server = LogServer(
        lambda: Log(opened.path),
        host=host,
        port=port,
        token=_token(token_file),
        certificate=_certificate(tls_cert, tls_key),
    )
    notes.print(f"{opened.path} is served at {server.address}", markup=False, soft_wrap=True)
    stop.wait()
    server.close()
    notes.print("stopped", markup=False)


def _token(file: Path | None) -> str | None:
    """Return the secret that clients must show."""
    from millstream.log.remote.token import VARIABLE

    if file is None:
        return os.environ.get(VARIABLE) or None
    token = _content(file, "--token-file").decode(errors="replace").strip()
    if not token:
        message = f"the token file {str(file)!r} is empty; write a long random text into it"
        raise OptionError(message)
    return token


def _certificate(certificate: Path | None, key: Path | None) -> Certificate | None:
    from millstream.log.remote.server import Certificate

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        message = "--tls-cert and --tls-key go together: a certificate and its key"
        raise OptionError(message)
    return Certificate(_content(certificate, "--tls-cert"), _content(key, "--tls-key"))


def _content(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"{option}: cannot read {str(file)!r}: {error.strerror}"
        raise OptionError(message) from error
