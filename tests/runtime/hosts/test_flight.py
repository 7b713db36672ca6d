"""The exchange between processes: what arrives, what is refused, what breaks it, how it ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import flight

from millstream.runtime.hosts.flight import StreamName, _encoded
from millstream.runtime.messages import Barrier, Batch, End, Message, Watermark
from tests.runtime.hosts.exchange_kit import TIMEOUT_S, TOKEN, Exchange, close_all, exchanges

ROOT = Path(__file__).resolve().parents[3]
ROWS = pa.record_batch({"number": list(range(8_192))})
Channel = tuple[str, int, int]
"""Exchange, sender, receiver."""
GRPC_BYTES = 64 << 20
"""More than what lies in gRPC's and the kernel's buffers between two ends that stand still."""


def send(outlet: Any, message: Message, sender: Exchange) -> None:
    """Send as a worker does: rows only where there is room."""
    if isinstance(message, Batch):
        assert sender.wait(outlet.has_room), sender.failures
    outlet.send(message)


def fill(sender: Exchange, exchange: str, receiver: int) -> int:
    """Send rows until there is no room any more, for good; return how many bytes."""
    outlet, sent = sender.flight.outlet(exchange, receiver), 0
    while sender.wait(outlet.has_room, timeout_s=0.5):
        outlet.send(Batch(ROWS))
        sent += ROWS.nbytes
        assert sent < 1 << 30, "it takes everything"
    return sent


# What arrives.

SCHEMAS = (
    pa.schema([("number", pa.int64())]),
    pa.schema([("number", pa.int64()), ("text", pa.string())]),
    pa.schema([("number", pa.int32()), ("code", pa.dictionary(pa.int8(), pa.string()))]),
)


def random_message(random_: random.Random, number: int, schema: pa.Schema) -> Message:
    match random_.randrange(8):
        case 0:
            return Watermark(
                random_.choice((-(1 << 63), -1, number, (1 << 63) - 1)), number % 2 > 0
            )
        case 1:
            return Barrier(number)
        case _:
            size = random_.choice((1, 1, 7, 300))
            columns: list[Any] = [pa.array(range(number, number + size), schema.field(0).type)]
            if len(schema) > 1:
                texts = [f"{random_.randrange(100)}" if each % 5 else None for each in range(size)]
                # Each batch has a dictionary of its own.
                text = pa.array(texts, pa.string())
                columns.append(
                    text.dictionary_encode().cast(schema.field(1).type)
                    if pa.types.is_dictionary(schema.field(1).type)
                    else text
                )
            return Batch(pa.record_batch(columns, schema=schema))


def schedule(random_: random.Random, count: int) -> list[Message]:
    """Messages of one channel; the schema of its rows changes now and then."""
    schema = random_.choice(SCHEMAS)
    messages = []
    for number in range(count):
        if random_.random() < 0.1:
            schema = random_.choice(SCHEMAS)
        messages.append(random_message(random_, number, schema))
    return [*messages, End()]


@pytest.mark.parametrize("limit_bytes", [1, 4_096, 1 << 20])
@pytest.mark.parametrize("seed", range(3))
def test_everything_arrives_in_order(limit_bytes: int, seed: int) -> None:
    random_ = random.Random(f"{seed} {limit_bytes}")
    workers = range(3)
    sent = {
        (exchange, sender, receiver): schedule(random_, 40)
        for exchange in ("first", "second")
        for sender in workers
        for receiver in workers
    }
    with exchanges(len(workers), limit_bytes) as made:

        def send_all(sender: int) -> None:
            chooser = random.Random(seed + sender)
            waiting = {each: deque(sent[each]) for each in sent if each[1] == sender}
            outlets = {each: made[sender].flight.outlet(each[0], each[2]) for each in waiting}

            def ready() -> list[Channel]:
                return [
                    each
                    for each, messages in waiting.items()
                    if outlets[each].has_room() or not isinstance(messages[0], Batch)
                ]

            while waiting:
                # Where one channel has no room, others go on.
                assert made[sender].wait(lambda: bool(ready()))
                channel = chooser.choice(ready())
                outlets[channel].send(waiting[channel].popleft())
                if not waiting[channel]:
                    del waiting[channel]

        threads = [threading.Thread(target=send_all, args=(each,)) for each in workers]
        for thread in threads:
            thread.start()
        for exchange, sender, receiver in random_.sample(sorted(sent), len(sent)):
            for message in sent[exchange, sender, receiver]:
                assert made[receiver].take(exchange, sender) == message
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert [each.failures for each in made] == [[], [], []]


def test_an_exchange_that_has_no_room_holds_up_no_other() -> None:
    # first: rows wait for a stage that waits for rows of second.
    with exchanges(2, ROWS.nbytes) as (sender, receiver):
        fill(sender, "first", 1)
        outlet = sender.flight.outlet("second", 1)
        for _ in range(300):
            send(outlet, Batch(ROWS), sender)
            assert receiver.take("second", 0) == Batch(ROWS)
        assert not sender.flight.outlet("first", 1).has_room()


def test_a_receiver_that_stands_still_stops_the_sender() -> None:
    limit = 4 * ROWS.nbytes
    with exchanges(2, limit) as (sender, receiver):
        before = pa.total_allocated_bytes()
        sent = fill(sender, "rows", 1)
        outlet = sender.flight.outlet("rows", 1)
        assert not outlet.has_room()
        assert sent <= 2 * limit + GRPC_BYTES
        assert pa.total_allocated_bytes() - before <= 2 * limit + GRPC_BYTES
        # What are no rows is taken at any time, and comes behind them.
        outlet.send(Barrier(1))
        taken = 0
        while isinstance(message := receiver.take("rows", 0), Batch):
            taken += message.size_bytes
        assert (taken, message) == (sent, Barrier(1))
        assert sender.wait(outlet.has_room)


# What is refused.


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"job": "another"}, "a stream for worker 1 of attempt 3 of 'another'"),
        ({"attempt": 2}, "a stream for worker 1 of attempt 2 of 'job'"),
        ({"attempt": 4}, "a stream for worker 1 of attempt 4 of 'job'"),
        ({"token": "another"}, "has another token"),
        ({"token": ""}, "has another token"),
    ],
)
def test_a_stream_of_another_attempt_is_refused(other: dict[str, Any], reason: str) -> None:
    with exchanges(2) as made:
        stranger = Exchange(0, **other)
        stranger.flight.connect([each.flight.location for each in made])
        outlet = stranger.flight.outlet("rows", 1)
        while not stranger.wait(lambda: bool(stranger.failures), timeout_s=0.01):
            outlet.send(Watermark(1, False))
        assert reason in stranger.failure()
        assert made[1].flight.inlet("rows", 0).peek() is None
        assert made[1].failures == []
        # The worker that it pretends to be is not held up.
        made[0].flight.outlet("rows", 1).send(End())
        assert made[1].take("rows", 0) == End()
        close_all([stranger])


def test_a_stream_for_another_worker_is_refused() -> None:
    with exchanges(3) as made:
        made[0].flight.connect([made[0].flight.location, made[2].flight.location])
        outlet = made[0].flight.outlet("rows", 1)
        while not made[0].wait(lambda: bool(made[0].failures), timeout_s=0.01):
            outlet.send(Watermark(1, False))
        assert "this is worker 2 of attempt 3" in made[0].failure()
        assert made[2].flight.inlet("rows", 0).peek() is None
        assert made[2].failures == []


@pytest.mark.parametrize("command", [b"", b"no JSON", b'{"job": "job"}'])
def test_a_stream_without_a_name_is_refused(command: bytes) -> None:
    with exchanges(2) as made, flight.connect(made[1].flight.location) as client:
        descriptor = flight.FlightDescriptor.for_command(command)
        writer, _ = client.do_put(descriptor, ROWS.schema)
        with pytest.raises(pa.ArrowException):
            writer.close()
        assert made[1].failures == []


# What breaks it.


def raw_stream(receiver: Exchange) -> Any:
    """A stream to a worker, as another worker's."""
    name = StreamName("job", 3, "rows", 0, receiver.flight.worker, TOKEN)
    client = flight.connect(receiver.flight.location)
    descriptor = flight.FlightDescriptor.for_command(msgspec.json.encode(name))
    return client.do_put(descriptor, pa.schema([]))[0]


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((1,), "message 1 of worker 0 came where 0 was due"),
        ((0, 1, 3), "message 3 of worker 0 came where 2 was due"),
        ((0, 1, 1), "message 1 of worker 0 came where 2 was due"),
    ],
)
def test_a_gap_or_a_repetition_breaks_the_exchange(numbers: tuple[int, ...], reason: str) -> None:
    with exchanges(2) as made:
        writer = raw_stream(made[1])
        for number in numbers:
            writer.write_metadata(pa.py_buffer(_encoded(number, Watermark(5, False))))
        assert reason in made[1].failure()
        good = len(numbers) - 1
        assert [made[1].take("rows", 0) for _ in range(good)] == [Watermark(5, False)] * good
        assert made[1].flight.inlet("rows", 0).peek() is None


def test_a_second_stream_goes_on_where_the_first_one_ended() -> None:
    with exchanges(2) as made:
        for number in range(3):
            writer = raw_stream(made[1])
            writer.write_metadata(pa.py_buffer(_encoded(number, Barrier(number))))
            writer.close()
        assert [made[1].take("rows", 0) for _ in range(3)] == [Barrier(0), Barrier(1), Barrier(2)]
        assert made[1].failures == []


def test_a_message_that_cannot_be_read_breaks_the_exchange() -> None:
    with exchanges(2) as made:
        writer = raw_stream(made[1])
        writer.write_metadata(pa.py_buffer(b"no header"))
        assert "the stream from worker 0 broke" in made[1].failure()


PEER = """
import sys
import pyarrow as pa
from millstream.runtime.messages import Batch, Watermark
from tests.runtime.hosts.exchange_kit import Exchange
from tests.runtime.hosts.test_flight import ROWS
peer = Exchange(1, limit_bytes=ROWS.nbytes)
print(peer.flight.location, flush=True)
peer.flight.connect([sys.stdin.readline().strip(), peer.flight.location])
outlet = peer.flight.outlet("rows", 0)
while True:
    peer.wait(outlet.has_room, timeout_s=0.05)
    outlet.send(Batch(ROWS) if outlet.has_room() else Watermark(1, False))
"""


@pytest.fixture
def peer() -> Iterator[subprocess.Popen[str]]:
    """Worker 1 of an attempt in a process of its own: it sends and takes nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", PEER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def connected(peer: subprocess.Popen[str]) -> Exchange:
    """Worker 0, whose peer sends to it."""
    assert peer.stdout is not None
    assert peer.stdin is not None
    own = Exchange(0, limit_bytes=ROWS.nbytes)
    own.flight.connect([own.flight.location, peer.stdout.readline().strip()])
    peer.stdin.write(f"{own.flight.location}\n")
    peer.stdin.flush()
    own.take("rows", 1)
    return own


@pytest.fixture
def patience_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """Closing waits so long for others, which no slow machine takes by itself."""
    monkeypatch.setattr("millstream.runtime.hosts.flight.CLOSE_TIMEOUT_S", TIMEOUT_S)
    return TIMEOUT_S


def test_a_killed_sender_breaks_the_exchange(
    peer: subprocess.Popen[str], patience_s: float
) -> None:
    own = connected(peer)
    peer.kill()
    deadline = time.monotonic() + TIMEOUT_S
    while not own.failures and time.monotonic() < deadline:
        # What had arrived comes first.
        if own.wait(lambda: own.flight.inlet("rows", 1).peek() is not None, timeout_s=0.01):
            own.take("rows", 1)
    assert "worker 1 is gone, in the middle of a stream" in own.failure()
    assert close_all([own]) < patience_s


def test_a_killed_receiver_breaks_the_exchange(
    peer: subprocess.Popen[str], patience_s: float
) -> None:
    own = connected(peer)
    fill(own, "rows", 1)
    peer.kill()
    assert "the stream 'rows' to worker 1" in own.failure()
    assert close_all([own]) < patience_s


# How it ends.


@pytest.mark.parametrize("in_flight", ["nothing", "some", "all that it takes"])
def test_closing_does_not_wait_for_what_is_in_flight(in_flight: str, patience_s: float) -> None:
    made = [Exchange(worker, ROWS.nbytes) for worker in range(4)]
    for each in made:
        each.flight.connect([other.flight.location for other in made])
    for each in made:
        for receiver in {0, 1, 2, 3} - {each.flight.worker}:
            if in_flight == "some":
                each.flight.outlet("rows", receiver).send(Batch(ROWS))
            elif in_flight == "all that it takes" and receiver == 0:
                fill(each, "rows", receiver)
    assert close_all(made) < patience_s
    assert [each.failures for each in made] == [[]] * 4
    assert close_all(made) < patience_s, "closed twice"


def test_closing_gives_up_on_a_worker_that_stands_still(
    peer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millstream.runtime.hosts.flight.CLOSE_TIMEOUT_S", 0.5)
    own = connected(peer)
    fill(own, "rows", 1)
    peer.send_signal(signal.SIGSTOP)
    assert 0.4 < close_all([own]) < TIMEOUT_S
    assert own.failures == []


COLLECTING = """
import gc
from millstream.runtime.messages import Batch
from tests.runtime.hosts.exchange_kit import Exchange
from tests.runtime.hosts.test_flight import ROWS
receiver, sender = Exchange(1, limit_bytes=1), Exchange(0, limit_bytes=1)
sender.flight.connect([sender.flight.location, receiver.flight.location])
outlet = sender.flight.outlet("rows", 1)
for _ in range(3):
    assert sender.wait(outlet.has_room)
    outlet.send(Batch(ROWS))
assert sender.wait(outlet.has_room), "all is on its way, and the receiver takes nothing"
assert receiver.wait(lambda: receiver.flight.inlet("rows", 0).peek() is not None)
sender.flight.close()
del sender, outlet
gc.collect()
print("goes on", flush=True)
receiver.flight.close()
"""


def test_a_sender_that_is_collected_holds_nobody_up() -> None:
    # In a process of its own: what this is about would stop every thread of it, for good.
    done = subprocess.run(
        [sys.executable, "-c", COLLECTING],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
