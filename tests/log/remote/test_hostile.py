"""Requests that no client of ours would send: each gets an error, and the server goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from crc32c import crc32c
from pyarrow import flight

from millstream.errors import MillstreamError, ProtocolError, SchemaMismatchError
from millstream.log import Log
from millstream.log.remote import group_messages as g
from millstream.log.remote import messages as m
from millstream.log.remote import server as servers
from millstream.log.remote.rows import bytes_batch, decode_rows, encode_rows
from millstream.log.remote.server import LogServer
from tests.log.log_kit import SCHEMA, put, read, rows
from tests.log.remote.remote_kit import memory_disk, remote_log, served

ROWS = pa.record_batch(
    {
        "id": pa.array([1, None, 3], pa.int64()),
        "text": pa.array(["ä", None, ""]),
        "list": [[1], None, []],
        "nested": [{"a": [b"x"]}, None, {"a": None}],
        "pair": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
        "nothing": pa.nulls(3),
        "word": pa.array(["x", None, "y"]).dictionary_encode(),
    }
)


class RawStream:
    """A stream whose requests are any bytes."""

    def __init__(self, address: str, command: bytes = m.PROTOCOL) -> None:
        client = flight.FlightClient(address)
        options = flight.FlightCallOptions(timeout=20)
        descriptor = flight.FlightDescriptor.for_command(command)
        self._writer, self._reader = client.do_exchange(descriptor, options)
        self._schema: pa.Schema | None = None

    def ask(self, metadata: bytes | None, batch: pa.RecordBatch | None = None) -> m.Answer:
        if batch is not None and self._schema is None:
            self._schema = batch.schema
            self._writer.begin(batch.schema)
        if batch is None:
            self._writer.write_metadata(metadata)
        elif metadata is None:
            self._writer.write_batch(batch)
        else:
            self._writer.write_with_metadata(batch, metadata)
        chunk = self._reader.read_chunk()
        return m.decode_answer(chunk.app_metadata.to_pybytes())

    def close(self) -> None:
        self._writer.done_writing()
        self._reader.cancel()
        with suppress(pa.ArrowException):
            self._writer.close()


@pytest.fixture
def server() -> Iterator[LogServer]:
    disk = memory_disk()
    with served(disk) as server, remote_log(server.address) as log:
        log.create_topic("a", SCHEMA)
        put(log, "a", range(5))
        yield server
        assert read(log.topic("a")) == [0, 1, 2, 3, 4]


@pytest.fixture
def stream(server: LogServer) -> Iterator[RawStream]:
    stream = RawStream(server.address)
    yield stream
    assert isinstance(stream.ask(m.encode(m.ListTopics())), m.Topics)
    stream.close()


def failure(answer: m.Answer) -> str:
    assert isinstance(answer, m.Failure), answer
    return f"{answer.error}: {answer.message}"


A = m.Place("00000001", 0)


def append(**changes: object) -> tuple[bytes, pa.RecordBatch]:
    """A good append of two rows, with some fields changed."""
    content, checksum = encode_rows(rows(7, 8))
    request = m.Append(A, ("id", "text"), checksum, 1, 0)
    return m.encode(msgspec.structs.replace(request, **changes)), bytes_batch(content)


class TestRequests:
    @pytest.mark.parametrize(
        "content",
        [
            b"{",
            b"null",
            b"[]",
            b'{"type":"Open"}',
            b'{"type":"Read"}',
            b'{"type":"Topics","configs":[]}',
            b'{"type":"FindEnds","place":{"topic":1,"partition":0}}',
            b'{"type":"FindEnds","place":{"topic":"00000001","partition":1e99}}',
            b"\xff\xfe",
            b"[" * 100_000,
        ],
    )
    def test_what_is_no_request_is_refused(self, stream: RawStream, content: bytes) -> None:
        assert failure(stream.ask(content)).startswith("ProtocolError: ")

    def test_too_much_json_is_refused(
        self, stream: RawStream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(m, "MESSAGE_BYTES_MAX", 1_000)
        assert "1001 bytes of JSON" in failure(stream.ask(b" " * 1_001))
        monkeypatch.undo()

    @pytest.mark.parametrize("topic", ["../../etc", "00000002", "", "control/..", "a"])
    @pytest.mark.parametrize("kind", [m.FindEnds, m.Verify])
    def test_a_topic_that_there_is_not_is_refused(
        self, stream: RawStream, topic: str, kind: type[m.FindEnds | m.Verify]
    ) -> None:
        answer = stream.ask(m.encode(kind(m.Place(topic, 0))))
        assert failure(answer).startswith("UnknownTopicError: no topic with the id")

    @pytest.mark.parametrize(
        ("request_", "error"),
        [
            (m.FindEnds(m.Place("00000001", -1)), "OptionError"),
            (m.FindEnds(m.Place("00000001", 1)), "OptionError"),
            (m.FindEnds(m.Place(m.CONTROL, 0)), "UnknownTopicError"),
            (m.Read(A, 6, 100), "OffsetOutOfRangeError"),
            (m.Read(A, -(2**62), 100), "OffsetOutOfRangeError"),
            (m.Sync(A, 2**62), "OptionError"),
            (m.SyncAll((("../a", 0),), (None,)), "InvalidTopicError"),
            (m.SyncAll((("a", 0),), ()), "ProtocolError"),
            (m.DescribeTopic("../a"), "InvalidTopicError"),
            (m.CreateTopic("{}", True), "InvalidTopicError"),
            (m.AwaitEnds((A,), (), 0), "ProtocolError"),
            (m.AwaitEnds((), (), 0), "ProtocolError"),
            (m.Decide(m.WriterName("x", 7, 1), 1, "commit", None), "FencedError"),
            (m.Prepare(m.WriterName("x", 7, 1), 1, (("a", 9),)), "OptionError"),
        ],
    )
    def test_what_cannot_be_is_told_by_its_type(
        self, stream: RawStream, request_: m.Request, error: str
    ) -> None:
        assert failure(stream.ask(m.encode(request_))).startswith(f"{error}: ")

    @pytest.mark.parametrize(
        ("request_", "error"),
        [
            (g.AskGroup("../a", "describe"), "InvalidGroupError"),
            (g.AskGroup("a", "lag"), "UnknownGroupError"),
            (g.DeleteGroup("a"), "UnknownGroupError"),
            (g.JoinGroup("t", "../a", None, ("a",), 1, True), "InvalidGroupError"),
            (g.JoinGroup("t", "a", "../b", ("a",), 1, True), "InvalidGroupError"),
            (g.CommitAsMember(g.Life("t", "a", "b", 1), ()), "FencedMemberError"),
            (g.CommitForGroup("a", (("a", 0, 1),), 7, 1, 1), "FencedError"),
            (g.CommitForGroup("a", (("b", 0, 1),)), "UnknownTopicError"),
            (g.ResetGroup("a", None, None, None, None, None, None, False), "OptionError"),
        ],
    )
    def test_what_cannot_be_in_a_group_is_told_by_its_type(
        self, stream: RawStream, request_: m.Request, error: str
    ) -> None:
        assert failure(stream.ask(m.encode(request_))).startswith(f"{error}: ")

    def test_a_topic_cannot_be_made_with_a_type_that_runs_code(self, stream: RawStream) -> None:
        field = pa.field("id", pa.int64(), metadata={"ARROW:extension:name": "arrow.py_extension"})
        made = memory_topic_json(pa.schema([field]))
        answer = failure(stream.ask(m.encode(m.CreateTopic(made, False))))
        assert answer.startswith("InvalidTopicError: column 'id' is marked as the extension type")

    def test_another_protocol_is_refused(self, server: LogServer) -> None:
        for command in (b"", b"millstream-log/2", b"\0" * 1_000):
            stream = RawStream(server.address, command)
            with pytest.raises(pa.ArrowException, match="a stream is opened with"):
                stream.ask(m.encode(m.ListTopics()))
            stream.close()

    def test_other_calls_of_flight_are_refused(self, server: LogServer) -> None:
        client = flight.FlightClient(server.address)
        calls = (
            lambda: list(client.list_flights()),
            lambda: client.do_get(flight.Ticket(b"a")).read_all(),
            lambda: list(client.do_action(flight.Action("a", b""))),
        )
        for call in calls:
            with pytest.raises(pa.ArrowNotImplementedError):
                call()
        client.close()

    def test_damaged_ones_never_end_the_server(self, stream: RawStream) -> None:
        good = [
            m.encode(each)
            for each in (
                m.ListTopics(),
                m.Read(A, 0, 1_000_000),
                m.FindEnds(A),
                m.FindStableEnds("00000001", 0, (0,)),
                m.FindTime(A, 0),
                m.AwaitEnds((A,), (5,), 10),
            )
        ]
        generator = random.Random(1)
        for _ in range(300):
            content = bytearray(generator.choice(good))
            for _ in range(generator.choice([1, 1, 3])):
                content[generator.randrange(len(content))] = generator.randrange(256)
            assert isinstance(stream.ask(bytes(content)), m.Answer)


def memory_topic_json(schema: pa.Schema) -> str:
    """The `topic.json` of a topic whose schema nobody has checked."""
    import base64

    log = Log("/x", storage=memory_disk().storage("x"))
    config = msgspec.json.decode(log.create_topic("b", SCHEMA).config.to_json())
    config["schema"] = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return msgspec.json.encode(config).decode()


class TestRows:
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"checksum": 0}, "ProtocolError: the checksum of the rows does not hold"),
            ({"columns": ("text", "id")}, "SchemaMismatchError"),
            ({"columns": ("id", "text", "_op")}, "SchemaMismatchError"),
            ({"columns": ("id", "text", "_headers")}, "SchemaMismatchError"),
            ({"place": m.Place(m.CONTROL, 0)}, "OptionError: nobody appends to the control"),
            ({"owner_id": 3, "epoch": 9}, "FencedError: owner 3 has epoch 0"),
            ({"owner_id": 3}, "FencedError: owner 3 has epoch 0; nobody was given 0"),
            ({"owner_id": -3}, "ProtocolError"),
            ({"transaction": 1}, "ProtocolError: a transaction has an owner"),
            ({"follows": 1}, "ProtocolError: append 1 follows another of its owner"),
            (
                {"follows": 0, "owner_id": 1, "epoch": 1, "transaction": 3},
                "ProtocolError: append 1 follows another of its owner, and belongs to transaction",
            ),
            ({"flags": 2}, "ProtocolError"),
            ({"flags": 1}, "ProtocolError: a control marker has no rows; got 2"),
        ],
    )
    def test_an_append_that_does_not_fit_is_refused(
        self, stream: RawStream, changes: dict[str, object], error: str
    ) -> None:
        assert failure(stream.ask(*append(**changes))).startswith(error)

    @pytest.mark.parametrize("number", [b"9223372036854775808", b"1e400", b"-1e30", b"0.5"])
    def test_a_number_that_is_none_is_refused(self, stream: RawStream, number: bytes) -> None:
        request, batch = append(sequence=77)
        answer = stream.ask(request.replace(b'"sequence":77', b'"sequence":' + number), batch)
        assert failure(answer).startswith("ProtocolError: ")

    def test_bytes_beside_another_request_are_refused(self, stream: RawStream) -> None:
        answer = stream.ask(m.encode(m.ListTopics()), bytes_batch(pa.py_buffer(b"x")))
        assert failure(answer).startswith("ProtocolError: ListTopics comes without bytes")

    def test_bytes_without_a_request_are_refused(self, server: LogServer) -> None:
        stream = RawStream(server.address)
        answer = stream.ask(None, bytes_batch(pa.py_buffer(b"x")))
        assert failure(answer).startswith("ProtocolError: ")
        stream.close()

    def test_rows_of_another_schema_are_refused(self, server: LogServer) -> None:
        stream = RawStream(server.address)
        request, _ = append()
        assert failure(stream.ask(request, rows(1))).startswith("ProtocolError: bytes come as")
        stream.close()

    def test_an_append_without_rows_is_refused(self, stream: RawStream) -> None:
        request, _ = append()
        assert failure(stream.ask(request)).startswith("ProtocolError: the checksum")
        request, _ = append(checksum=0)
        assert failure(stream.ask(request)).startswith("SchemaMismatchError: ")

    def test_too_many_bytes_are_refused(
        self, stream: RawStream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(m, "BODY_BYTES_MAX", 10)
        assert "are allowed" in failure(stream.ask(*append()))

    def test_compressed_rows_are_refused(self) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, SCHEMA, options=options) as writer:
            writer.write_batch(rows(*range(1_000)))
        content = sink.getvalue()
        message = content.slice(SCHEMA.serialize().size)
        with pytest.raises(SchemaMismatchError, match="compressed body"):
            decode_rows(message, SCHEMA, crc32c(message))

    def test_too_many_rows_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("millstream.log.remote.rows.ROWS_MAX", 10)
        schema = pa.schema([("nothing", pa.null())])
        content, checksum = encode_rows(pa.record_batch([pa.nulls(11)], schema=schema))
        with pytest.raises(SchemaMismatchError, match="rows come at once"):
            decode_rows(content, schema, checksum)

    def test_nulls_where_there_may_be_none_are_refused(self) -> None:
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False)])
        content, checksum = encode_rows(pa.record_batch({"id": pa.array([None], pa.int64())}))
        with pytest.raises(SchemaMismatchError, match="'id' may not be null; got 1"):
            decode_rows(content, schema, checksum)

    def test_text_that_is_not_utf8_is_refused(self) -> None:
        schema = pa.schema([("text", pa.string())])
        damaged = pa.Array.from_buffers(pa.binary(), 1, pa.array([b"\xff"]).buffers())
        content, checksum = encode_rows(pa.record_batch({"text": damaged}))
        with pytest.raises(SchemaMismatchError, match="UTF"):
            decode_rows(content, schema, checksum)

    def test_good_rows_come_through(self) -> None:
        assert decode_rows(*_arguments(ROWS)).equals(ROWS)

    def test_damaged_rows_are_refused_or_harmless(self) -> None:
        content, schema, _ = _arguments(ROWS)
        metadata = 8 + int.from_bytes(content.slice(4, 4).to_pybytes(), "little")
        refused = 0
        for seed in range(2_000):
            generator = random.Random(seed)
            damaged = _damaged(content.to_pybytes(), metadata, generator)
            buffer = pa.py_buffer(damaged)
            try:
                decode_rows(buffer, schema, crc32c(damaged)).validate(full=True)
            except MillstreamError as error:
                assert isinstance(error, SchemaMismatchError | ProtocolError)
                refused += 1
        assert refused > 1_000


def _arguments(batch: pa.RecordBatch) -> tuple[pa.Buffer, pa.Schema, int]:
    content, checksum = encode_rows(batch)
    return content, batch.schema, checksum


def _damaged(content: bytes, metadata: int, generator: random.Random) -> bytes:
    """`content` with some of it changed, mostly of what says where everything is."""
    damaged = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5])):
        position = generator.randrange(metadata if generator.random() < 0.8 else len(damaged))
        match generator.randrange(4):
            case 0:
                damaged[position] ^= 1 << generator.randrange(8)
            case 1:
                damaged[position] = generator.choice([0, 255, 127, 128])
            case 2:
                word = generator.choice([0, -1, 2**63 - 1, -(2**63), 2**31, 2**40, 64])
                start = position // 8 * 8
                damaged[start : start + 8] = word.to_bytes(8, "little", signed=True)
            case _ if position > metadata // 2:
                return bytes(damaged[:position])
    return bytes(damaged)


def test_too_many_streams_are_refused(server: LogServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "STREAMS_MAX", 0)
    stream = RawStream(server.address)
    with pytest.raises(flight.FlightUnavailableError, match="0 streams already"):
        stream.ask(m.encode(m.ListTopics()))
    stream.close()
    monkeypatch.undo()


def test_a_server_that_sends_damaged_frames_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from millstream.errors import CorruptSegmentError

    with served(memory_disk()) as server, remote_log(server.address) as log:
        topic = log.create_topic("a", SCHEMA)
        put(log, "a", range(5))
        answer = server._service.answer

        position = 0

        def damaging(*arguments: Any) -> tuple[m.Answer, pa.Buffer | None]:
            found, body = answer(*arguments)
            if body is not None:
                content = bytearray(body.to_pybytes())
                content[-1 - position] ^= 1
                body = pa.py_buffer(bytes(content))
            return found, body

        monkeypatch.setattr(server._service, "answer", damaging)
        for position in (0, 200, 400):  # noqa: B007  # the server looks at it
            with pytest.raises(CorruptSegmentError, match=r"damaged from offset 0.* on grpc://"):
                topic.reader(0).read()
        monkeypatch.undo()
        assert read(topic) == [0, 1, 2, 3, 4]
