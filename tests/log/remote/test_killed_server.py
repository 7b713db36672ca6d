"""A server that is killed while clients append: what was acknowledged is there, once, in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from millstream.errors import RemoteLogError
from millstream.log import Log
from tests.cli.process_kit import COMMAND, environment
from tests.log.log_kit import SCHEMA, ids_of, read
from tests.log.processes import WriterProcess

KILLS = 2
ROWS = 600
NAMED_ROWS = 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """`millstream log serve`, on the same port in each life."""

    def __init__(self, path: Path, port: int) -> None:
        self._path = path
        self._arguments = ["log", "serve", "--port", str(port)]
        self._process = self._start()

    def kill_and_restart(self) -> None:
        self.close()
        self.restart()

    def restart(self) -> None:
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *self._arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self._path),
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "is served at" in line, line
        return process


def test_every_acknowledged_row_is_there_once(tmp_path: Path) -> None:
    Log(tmp_path).create_topic("a", SCHEMA)
    port = free_port()
    server = ServerProcess(tmp_path, port)
    address = f"grpc://127.0.0.1:{port}"
    try:
        with (
            WriterProcess(address, "append:0", ROWS) as one,
            WriterProcess(address, "append:1000", ROWS) as other,
        ):
            one.go()
            other.go()
            for number in range(KILLS):
                # In the middle of one's appends, and mostly of the other's.
                one.wait_for(f"acked {30 * number + 30}")
                assert one.running()
                server.kill_and_restart()
            acked = one.acked(), other.acked()
    finally:
        server.close()
    found = read(Log(tmp_path).topic("a"))
    for first, told in zip((0, 1000), acked, strict=True):
        own = [each for each in found if first <= each < first + 1000]
        assert told[-1] == first + ROWS - 1
        assert own == list(range(first, first + ROWS))


def test_a_named_producer_is_killed_as_its_server_is_and_each_row_is_there_once(
    tmp_path: Path,
) -> None:
    Log(tmp_path).create_topic("a", SCHEMA, partitions=2, key=["id"])
    port = free_port()
    server = ServerProcess(tmp_path, port)
    address = f"grpc://127.0.0.1:{port}"
    try:
        with WriterProcess(address, "named:1000", NAMED_ROWS) as other:
            with WriterProcess(address, "named:0", NAMED_ROWS) as one:
                other.go()
                one.go()
                one.wait_for("acked 29")
                assert one.running()
                server.kill_and_restart()
                one.wait_for("acked 59")
                assert one.running()
                server.close()
                one.kill()  # while it tries again, and nobody answers
                server.restart()
            with WriterProcess(address, "named:0", NAMED_ROWS) as one:
                one.go()
                assert one.acked()[-1] == NAMED_ROWS - 1
            assert other.acked()[-1] == 1_000 + NAMED_ROWS - 1
    finally:
        server.close()
    topic = Log(tmp_path).topic("a")
    for partition in range(2):
        found = read(topic, partition)
        for first in (0, 1_000):
            own = [each for each in found if first <= each < first + 1_000]
            assert own == sorted(own)
    found = sorted(ids_of(topic.to_arrow()))
    assert found == [*range(NAMED_ROWS), *range(1_000, 1_000 + NAMED_ROWS)]


def test_a_server_that_stands_still_is_told(tmp_path: Path) -> None:
    port = free_port()
    server = ServerProcess(tmp_path, port)
    try:
        log = Log(f"grpc://127.0.0.1:{port}", timeout_s=1)
        assert log.topic_names() == []
        os.kill(server.pid, signal.SIGSTOP)
        os.waitpid(server.pid, os.WUNTRACED)
        with pytest.raises(RemoteLogError, match="did not answer for 1 s"):
            log.topic_names()
        os.kill(server.pid, signal.SIGCONT)
        assert log.topic_names() == []
    finally:
        server.close()
