"""`millstream log serve`, and the other commands against a log at an address."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millstream.log import Log
from millstream.log.remote.server import LogServer
from tests.cli.conftest import Command
from tests.cli.process_kit import TIMEOUT_S, started
from tests.log.log_kit import SCHEMA, put, read


@contextmanager
def server(log: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    with started(log, "log", "serve", "--port", "0", *arguments) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert " is served at " in line, line + process.stderr.read()
        yield process, line.split()[-1]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_stopped(tmp_path: Path, stop: signal.Signals) -> None:
    Log(tmp_path).create_topic("a", SCHEMA)
    with server(tmp_path) as (process, address):
        log = Log(address)
        put(log, "a", range(3))
        process.send_signal(stop)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "stopped\n"
    assert read(Log(tmp_path).topic("a")) == [0, 1, 2]


def test_commands_take_an_address_for_a_log(millstream: Command, log_directory: Path) -> None:
    server = LogServer(lambda: Log(log_directory))
    rows = b'{"id": 1, "text": "x"}\n{"id": 2, "text": "y"}\n'
    at = ("--log", server.address)
    code, _, notes = millstream("produce", "a", "--create", *at, stdin=rows)
    assert (code, notes) == (0, "topic 'a' created\n2 rows appended to 'a'\n")
    _, out, _ = millstream("consume", "a", "--format", "csv", "--columns", "text", *at)
    assert out == '"text"\n"x"\n"y"\n'
    _, out, _ = millstream("topics", "list", *at)
    assert "a" in out
    _, out, _ = millstream("topics", "describe", "a", *at)
    assert "durable end" in out
    _, out, _ = millstream("topics", "alter", "a", "--config", "retention.ms=9", *at)
    assert out == "retention.ms = 9\n"
    code, _, notes = millstream("consume", "b", *at)
    assert (code, "no topic 'b'" in notes) == (2, True)
    server.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--log", "http://here"], "is no address of a log"),
        (["--log", "grpc://here"], "is served already"),
        (["--tls-cert", "{}/cert"], "--tls-cert and --tls-key go together"),
        (["--tls-cert", "{}/cert", "--tls-key", "{}/key"], "--tls-cert: cannot read"),
        (["--token-file", "{}/token"], "--token-file: cannot read"),
        (["--token-file", "/dev/null"], "is empty"),
        (["--port", "70000"], "--port"),
    ],
)
def test_what_cannot_be_served_is_told(
    millstream: Command, tmp_path: Path, options: list[str], complaint: str
) -> None:
    code, _, notes = millstream("log", "serve", *(each.format(tmp_path) for each in options))
    assert (code, complaint in notes) == (2, True), notes


def test_a_port_that_is_taken_is_told(millstream: Command, log_directory: Path) -> None:
    server = LogServer(lambda: Log(log_directory))
    port = server.address.rpartition(":")[2]
    code, _, notes = millstream("log", "serve", "--port", port)
    assert (code, f"cannot serve a log at 127.0.0.1:{port}" in notes) == (1, True), notes
    server.close()
