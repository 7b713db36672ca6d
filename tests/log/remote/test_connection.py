"""Connections that are lost, servers that go and come, and what a client is told."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pyarrow as pa
import pytest

from millstream.errors import LostRowsError, RemoteLogError
from millstream.log import Log
from millstream.log.remote import connection as connections
from millstream.log.remote import messages as m
from millstream.log.remote.connection import Connection
from millstream.log.remote.remote_log import RemoteLog
from millstream.log.remote.service import LogService, _LastAppend
from millstream.log.remote.stream import Stream, StreamBrokenError
from millstream.log.topic_config import Durability
from tests.log.log_kit import SCHEMA, log_on, lose_unsynced_rows, memory, put, read, rows
from tests.log.remote.remote_kit import memory_disk, remote_log, served


def connection_of(log: Log) -> Connection:
    assert isinstance(log, RemoteLog)
    return log._asker.connection


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_nobody_at_an_address_is_told_with_the_remedy() -> None:
    with served(memory_disk()) as server:
        address = server.address
    with remote_log(address, timeout_s=0.2) as log:
        before = time.monotonic()
        with pytest.raises(RemoteLogError, match=rf"{address} did not answer.*log serve"):
            log.topic_names()
        assert time.monotonic() - before < 5


def test_readers_and_producers_survive_another_server() -> None:
    disk = memory_disk()
    with served(disk) as server, remote_log(server.address) as log:
        address = server.address
        topic = log.create_topic("a", SCHEMA)
        producer = log.producer("a")
        reader = topic.reader(0)
        producer.append(rows(1))
        server.close()
        with served(disk, port=port_of(address)):
            producer.append(rows(2))
            producer.flush()
            batch = reader.read()
            assert batch is not None
            assert batch.column("id").to_pylist() == [1, 2]


def test_every_client_is_told_that_its_rows_were_lost() -> None:
    disk = memory_disk()
    with (
        served(disk) as server,
        remote_log(server.address) as one,
        remote_log(server.address) as two,
    ):
        one.create_topic("a", SCHEMA)
        producers = [each.producer("a") for each in (one, one, two)]
        for number, producer in enumerate(producers):
            producer.append(rows(number))
        other = log_on(disk.storage("other"))
        lose_unsynced_rows(other.topic("a").partition(0), memory(other))
        two.producer("a").flush()  # has lost nothing
        for producer in producers:
            with pytest.raises(LostRowsError, match="append them again"):
                producer.flush()
            producer.append(rows(7))
            producer.flush()
        assert read(one.topic("a")) == [7, 7, 7]
        with pytest.raises(LostRowsError), one.transaction("x") as transaction:
            transaction.append("a", rows(8))
            lose_unsynced_rows(other.topic("a").partition(0), memory(other))
        participants = [("a", 0)]
        losses = one.topic("a").partition(0).append(rows(9)).losses
        lose_unsynced_rows(other.topic("a").partition(0), memory(other))
        with pytest.raises(LostRowsError):
            one.transactions.sync(participants, {("a", 0): losses})
        one.transactions.sync(participants)


def test_a_request_waits_for_a_server_that_comes() -> None:
    disk = memory_disk()
    with served(disk) as server:
        port = port_of(server.address)
    found: list[list[str]] = []
    with remote_log(f"grpc://127.0.0.1:{port}") as log:
        asking = threading.Thread(target=lambda: found.append(log.topic_names()))
        asking.start()
        with served(disk, port=port):
            asking.join(10)
    assert found == [[]]


class TestAnswersThatAreLost:
    """The server does what it was asked, and the connection breaks before it can say so."""

    @pytest.fixture(autouse=True)
    def losing(self, monkeypatch: pytest.MonkeyPatch) -> set[type]:
        """Types of requests of which the next answer is lost."""
        kinds: set[type] = set()
        ask = Stream.ask

        def losing(
            self: Stream, request: m.Request, body: pa.Buffer | None, timeout_s: float
        ) -> Any:
            answer = ask(self, request, body, timeout_s)
            if type(request) in kinds:
                kinds.discard(type(request))
                raise StreamBrokenError
            return answer

        monkeypatch.setattr(Stream, "ask", losing)
        return kinds

    @pytest.mark.parametrize("durability", ["fsync", "os"])
    @pytest.mark.parametrize("remembers", [True, False])
    def test_an_append_is_stored_once(
        self,
        losing: set[type],
        remembers: bool,
        durability: Durability,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not remembers:  # as one that was started anew
            monkeypatch.setattr(LogService, "_last_append", lambda *_: _LastAppend())
        with served(memory_disk()) as server, remote_log(server.address) as log:
            topic = log.create_topic("a", SCHEMA, durability=durability)
            for ids in ([1, 2], [3], [1, 2]):
                losing.add(m.Append)
                put(log, "a", ids)
                assert not losing
            assert read(topic) == [1, 2, 3, 1, 2]

    def test_an_append_of_a_named_producer_is_stored_once(self, losing: set[type]) -> None:
        with served(memory_disk()) as server, remote_log(server.address) as log:
            topic = log.create_topic("a", SCHEMA)
            with log.producer("a", name="me") as producer:
                for ids in ([1, 2], [3], [1, 2]):
                    losing.add(m.Append)
                    producer.append(rows(*ids))
                    assert not losing
            assert read(topic) == [1, 2, 3, 1, 2]

    def test_an_append_that_did_not_arrive_is_stored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ask = Stream.ask
        lost = []

        def losing(
            self: Stream, request: m.Request, body: pa.Buffer | None, timeout_s: float
        ) -> Any:
            if isinstance(request, m.Append) and not request.is_repeated:
                lost.append(request)
                raise StreamBrokenError
            return ask(self, request, body, timeout_s)

        monkeypatch.setattr(Stream, "ask", losing)
        with served(memory_disk()) as server, remote_log(server.address) as log:
            topic = log.create_topic("a", SCHEMA)
            put(log, "a", [1, 2])
            put(log, "a", [3])
            assert len(lost) == 2
            assert read(topic) == [1, 2, 3]

    def test_topics_are_created_and_deleted_once(self, losing: set[type]) -> None:
        with served(memory_disk()) as server, remote_log(server.address) as log:
            losing |= {m.CreateTopic, m.DeleteTopic}
            log.create_topic("a", SCHEMA)
            log.delete_topic("a")
            assert not losing
            assert log.topic_names() == []

    def test_a_transaction_is_committed_once(self, losing: set[type]) -> None:
        with served(memory_disk()) as server, remote_log(server.address) as log:
            topic = log.create_topic("a", SCHEMA)
            losing |= {m.TakeEpoch, m.Append, m.Prepare, m.Decide}
            with log.transaction("me") as transaction:
                transaction.append("a", rows(1))
            assert not losing
            assert read(topic) == [1]


def test_a_request_that_takes_too_long_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = threading.Event()
    with served(memory_disk()) as server, remote_log(server.address, timeout_s=0.5) as log:
        monkeypatch.setattr(server._service, "answer", lambda *_: asleep.wait(10))
        with pytest.raises(RemoteLogError, match=r"did not answer for 0.5 s"):
            log.topic_names()
        asleep.set()


def test_a_server_does_not_wait_for_idle_clients() -> None:
    with served(memory_disk()) as server, remote_log(server.address) as log:
        log.topic_names()
        before = time.monotonic()
        server.close()
        assert time.monotonic() - before < 4
        assert server._streams == 0


def test_idle_streams_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.05)
    monkeypatch.setattr(connections, "WATCH_S", 0.02)
    with served(memory_disk()) as server, remote_log(server.address) as log:
        log.topic_names()
        with server._changed:
            assert server._changed.wait_for(lambda: server._streams == 0, 10)
        assert not connection_of(log)._streams


def test_a_log_that_is_forgotten_leaves_nothing_behind() -> None:
    with served(memory_disk()) as server:
        log = Log(server.address)
        log.topic_names()
        del log
        gc.collect()
        with server._changed:
            assert server._changed.wait_for(lambda: server._streams == 0, 10)


def test_many_threads_ask_at_the_same_time() -> None:
    with served(memory_disk()) as server, remote_log(server.address) as log:
        partition = log.create_topic("a", SCHEMA).partition(0)

        def append(first: int) -> None:
            for each in range(first, first + 20):
                partition.append(rows(each))
                partition.sync()

        threads = [threading.Thread(target=append, args=(first,)) for first in (0, 100, 200)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        found = read(log.topic("a"))
    assert sorted(found) == [*range(20), *range(100, 120), *range(200, 220)]
    for first in (0, 100, 200):
        own = [each for each in found if first <= each < first + 100]
        assert own == sorted(own)


def test_a_read_does_not_wait_for_rows_that_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = memory_disk()
    with served(disk) as server, remote_log(server.address) as log:
        topic = log.create_topic("a", SCHEMA, durability="os")
        reader = topic.reader(0)
        other = log_on(disk.storage("another")).topic("a").partition(0)
        ask = Stream.ask

        def followed(
            self: Stream, request: m.Request, body: pa.Buffer | None, timeout_s: float
        ) -> Any:
            answer = ask(self, request, body, timeout_s)
            if isinstance(request, m.Read) and other.written_end < 1_000:
                other.append(rows(other.written_end))
            return answer

        other.append(rows(0))
        monkeypatch.setattr(Stream, "ask", followed)
        batch = reader.read()
        assert batch is not None
        assert batch.num_rows < 10
