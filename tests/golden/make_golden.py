"""Writes the golden files of the log's format; run as `python tests/golden/make_golden.py`.

They change only with the format's version: `tests/log/test_golden.py` checks that today's
code reads them and writes the same bytes.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.log import Log, control_topic
from millstream.log.columns import HEADERS_FIELD, TIMESTAMP_FIELD
from millstream.log.frame_header import FLAG_CONTROL, column_checksum, frame_header_size
from millstream.log.metadata import dictionary_count
from millstream.log.partition import Partition
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.storage_local import LocalStorage

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "partition-1"
START_US = 1_357_000_000_000_000

PLAIN = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC")),
        pa.field("key", pa.string()),
        pa.field("value", pa.int64()),
    ]
)
NESTED = pa.schema(
    [
        pa.field("flag", pa.bool_()),
        pa.field("number", pa.float64()),
        pa.field("small", pa.int8()),
        pa.field("price", pa.decimal128(10, 2)),
        pa.field("raw", pa.large_binary()),
        pa.field("digest", pa.binary(4)),
        pa.field("day", pa.date32()),
        pa.field("nothing", pa.null()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("pair", pa.list_(pa.float32(), 2)),
        pa.field("place", pa.struct([("city", pa.string()), ("codes", pa.list_(pa.int16()))])),
        pa.field("headers", pa.map_(pa.string(), pa.binary())),
    ]
)
COLOURS = pa.schema(
    [
        pa.field("n", pa.int64()),
        pa.field("colour", pa.dictionary(pa.int32(), pa.string())),
        pa.field("tags", pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ]
)


def plain_rows(start: int, count: int) -> pa.RecordBatch:
    """Rows with falling times, repeated keys and a null in every column."""
    numbers = range(start, start + count)
    columns = [
        pa.array([None if i % 5 == 3 else START_US - i * 1_000 for i in numbers], PLAIN[0].type),
        pa.array([None if i % 7 == 2 else f"key-{i % 3}" for i in numbers]),
        pa.array([None if i % 4 == 1 else i * i for i in numbers], pa.int64()),
    ]
    return pa.record_batch(columns, schema=PLAIN)


def nested_rows() -> pa.RecordBatch:
    """Each type that a segment holds, with nulls at the top and inside."""
    rows: list[dict[str, Any]] = [
        {
            "flag": True,
            "number": -0.0,
            "small": -128,
            "price": Decimal("12345678.90"),
            "raw": b"\x00\xff",
            "digest": b"abcd",
            "day": 15_706,
            "nothing": None,
            "tags": ["a", None, "ccc"],
            "pair": [1.5, None],
            "place": {"city": "New York", "codes": [1, None, 3]},
            "headers": [("trace", b"1"), ("empty", None)],
        },
        dict.fromkeys(NESTED.names),
        {
            "flag": False,
            "number": float("inf"),
            "small": 127,
            "price": Decimal("-0.01"),
            "raw": b"",
            "digest": b"\x00\x00\x00\x00",
            "day": -1,
            "nothing": None,
            "tags": [],
            "pair": [0.0, -1.0],
            "place": {"city": None, "codes": []},
            "headers": [],
        },
    ]
    columns = [
        pa.array([row[name] for row in rows], NESTED.field(name).type) for name in NESTED.names
    ]
    return pa.record_batch(columns, schema=NESTED)


def open_golden(folder: Path, name: str, clock: ManualClock, **options: Any) -> Partition:
    """The golden partition `name` in `folder`, as its last writer had it open."""
    options = {"schema": SCHEMAS[name], **OPTIONS.get(name, {}), **options}
    return Partition(str(folder / name), storage=LocalStorage(), clock=clock, name=name, **options)


def write_partition(folder: Path, name: str) -> Partition:
    """Append the golden rows to a new partition in `folder`/`name` and return it."""
    clock = ManualClock(START_US)
    if name == "evolved":
        write_evolved(folder, clock)
    partition = open_golden(folder, name, clock)
    if name == "nested":
        partition.append(nested_rows())
        clock.sleep_us(1)
        partition.append(nested_rows().slice(2))
    elif name == "dictionaries":
        partition.append(dictionary_rows("red", "green", None, "red"))
        partition.append(dictionary_rows("blue", "red").slice(1))
    elif name == "compressed":
        for compression in ("lz4", "zstd", "none"):
            partition.settings.known = TopicSettings(compression_type=compression)
            partition.append(plain_rows(partition.written_end, 40))
        partition.settings.known = TopicSettings(compression_type="zstd")
        partition.append(plain_rows(0, 0), flags=FLAG_CONTROL)
    elif name == "plain":
        partition.append(plain_rows(0, 9), owner_id=7, epoch=2, sequence=1)
        partition.sync()
        clock.sleep_us(1_000_000)
        partition.append(
            plain_rows(6, 8).slice(3, 5), owner_id=7, epoch=2, sequence=2, transaction=5
        )
        partition.append(plain_rows(0, 0), transaction=5, flags=FLAG_CONTROL)
        partition.append(plain_rows(14, 1))
    partition.sync()
    return partition


def write_evolved(folder: Path, clock: ManualClock) -> None:
    """Append rows without, and with, a column that came later, headers and times of their own."""
    headers = pa.array([[("trace", b"\x01"), ("trace", None)], None, []], HEADERS_FIELD.type)
    times = pa.array([START_US + 9_000_000, None, START_US], TIMESTAMP_FIELD.type)
    old = open_golden(folder, "evolved", clock, schema=pa.schema(list(PLAIN)[:2]))
    new = open_golden(folder, "evolved", clock)
    old.append(plain_rows(0, 3).select([0, 1]))
    new.append(plain_rows(3, 3))
    old.append(plain_rows(6, 3).select([0, 1]))
    new.append(plain_rows(9, 3).append_column(HEADERS_FIELD, headers))
    old.append(plain_rows(12, 3).select([0, 1]).append_column(TIMESTAMP_FIELD, times))
    new.append(plain_rows(15, 3))


def dictionary_rows(*colours: str | None) -> pa.RecordBatch:
    """Rows with dictionaries at the top and inside of lists."""
    plain = pa.array(colours)
    columns = [
        pa.array(range(len(plain)), pa.int64()),
        plain.dictionary_encode(),
        pa.array([None if each is None else [each, "x"] for each in colours], COLOURS[2].type),
    ]
    return pa.record_batch(columns, schema=COLOURS)


def describe(partition: Partition) -> list[dict[str, Any]]:
    """What FORMAT.md says of each frame, for readers in other languages to compare with."""
    cursor = partition.frames(0)
    dictionaries = sum(dictionary_count(each) for each in partition.schema.types)
    frames = []
    while (frame := cursor.next()) is not None:
        path, position = frame.location
        view = memoryview(Path(path).read_bytes())
        body = position + 8 + int.from_bytes(view[position + 4 : position + 8], "little")
        count = len(frame.columns)
        header = body - frame_header_size(count, dictionaries)
        frames.append(
            {
                "file": Path(path).name,
                "position": position,
                "header_position": header,
                **frame.header._asdict(),
                "column_checksums": [column_checksum(view, header, i) for i in range(count)],
                "header_checksum": int.from_bytes(view[body - 4 : body], "little"),
                "rows": [] if frame.is_control else frame.batch().to_pylist(),
            }
        )
    return frames


SCHEMAS = {
    "plain": PLAIN,
    "nested": NESTED,
    "dictionaries": COLOURS,
    "compressed": PLAIN,
    "evolved": PLAIN,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"time_column": "time", "settings": LiveSettings(TopicSettings(segment_bytes=1_500))}
}


LOG_FOLDER = HERE / "log-1"
ORDERS = pa.schema(
    [pa.field("customer", pa.string()), pa.field("at", PLAIN[0].type), pa.field("n", pa.int32())]
)
STOCK = pa.schema([pa.field("item", pa.string(), nullable=False), pa.field("count", pa.int64())])


def orders(start: int, count: int) -> pa.RecordBatch:
    """Orders of five customers, one of them unknown."""
    numbers = range(start, start + count)
    columns = [
        pa.array([None if i % 5 == 4 else f"customer {i % 5}" for i in numbers]),
        pa.array([START_US + i * 1_000_000 for i in numbers], ORDERS.field("at").type),
        pa.array(numbers, pa.int32()),
    ]
    return pa.record_batch(columns, schema=ORDERS)


def stock(**counts: int | None) -> pa.RecordBatch:
    """How many there are of some items."""
    columns = [pa.array(list(counts)), pa.array(list(counts.values()), pa.int64())]
    return pa.record_batch(columns, schema=STOCK)


def write_log(folder: Path) -> Log:
    """Write a log with a stream and a table, and transactions of every fate."""
    clock = ManualClock(START_US)
    log = Log(str(folder), storage=LocalStorage(), clock=clock)
    log.create_topic(
        "orders", ORDERS, partitions=2, key=["customer"], time="at", config={"segment.bytes": 2_000}
    )
    log.create_topic("gone", STOCK)
    log.create_topic("stock", STOCK, key=["item"], table=True)
    log.delete_topic("gone")
    with log.producer("orders") as producer:
        producer.append(orders(0, 8))
    with log.producer("stock") as producer:
        producer.append(stock(nut=10, bolt=20, gear=None))
    # Committed, over both topics; with a tombstone, and a later row for the same key.
    with log.transaction("billing") as transaction:
        clock.sleep_us(1)
        transaction.append("orders", orders(8, 6))
        transaction.append("stock", stock(nut=9))
        transaction.delete("stock", pa.table({"item": ["bolt"]}))
    # Aborted by a decision.
    with log.transaction("billing") as transaction:
        transaction.append("orders", orders(14, 5))
        transaction.delete("stock", pa.table({"item": ["nut"]}))
        transaction.abort()
    # Of a named producer: each append once, though it is made again, and in a later life.
    for again in (False, True):
        with log.producer("orders", name="shop") as named:
            named.append(orders(35, 4), sequence=1)
            if again:
                named.append(orders(39, 3), sequence=5)
                named.append(orders(39, 3), sequence=5)
    # Of a job: one aborted by a later epoch though it was prepared, one committed with a manifest.
    transactions = log.transactions
    old = transactions.writer("job late")
    with log.producer("orders", writer=old) as producer:
        producer.append(orders(19, 4), transaction=1)
    transactions.prepare(old, 1, [("orders", 0), ("orders", 1)])
    new = transactions.writer("job late")
    producer = log.producer("orders", writer=new)
    for number, start in ((4, 23), (5, 27), (6, 31)):
        clock.sleep_us(1_000)
        producer.append(orders(start, 4), transaction=number)
        transactions.prepare(new, number, [("orders", 0), ("orders", 1)])
    producer.append(orders(0, 3))  # of this writer, but in no transaction
    producer.flush()
    transactions.decide(new, 4, "commit", b'{"checkpoint":4}')
    transactions.decide(new, 5, "abort")
    # Undecided: number 6, and what lies behind it; in the table what comes last.
    with log.producer("stock") as plain:
        plain.append(stock(axle=1, bolt=7))
    with log.producer("stock", writer=new) as open_one:
        open_one.append(stock(axle=2), transaction=7)
    with log.producer("stock") as plain:
        plain.append(stock(axle=3))
    return log


COMPACTED_FOLDER = HERE / "compacted-1"


class LocalStorageWithoutBackground(LocalStorage):
    """Cleaning by itself would happen now or then, and the bytes be these or those."""

    def run_later(self, name: str, work: object) -> None:
        pass


def write_compacted(folder: Path) -> Log:
    """Write a log with a compacted table, and a stream whose first segments are gone."""
    clock = ManualClock(START_US)
    log = Log(str(folder), storage=LocalStorageWithoutBackground(), clock=clock)
    log.create_topic("stock", STOCK, key=["item"], table=True, config={"segment.bytes": 1_500})
    log.create_topic(
        "orders", ORDERS, key=["customer"], time="at",
        config={"segment.bytes": 1_500, "retention.bytes": 2_500},
    )  # fmt: skip
    for number in range(20):
        clock.sleep_us(1_000)
        with log.producer("stock") as producer:
            producer.append(stock(nut=number, **{f"item {number % 4}": number}))
        with log.producer("orders") as producer:
            producer.append(orders(3 * number, 3))
        with log.transaction("billing") as transaction:
            transaction.append("stock", stock(bolt=number, axle=-number))
            if number % 3 == 2:
                transaction.abort()
        if number % 5 == 4:
            with log.producer("stock") as producer:
                producer.delete(pa.table({"item": [f"item {number % 4}"]}))
        if number in {9, 17}:
            log.clean()
    return log


REPARTITIONED_FOLDER = HERE / "repartitioned-1"


def write_repartitioned(folder: Path) -> Log:
    """Write a log with a stream and a table that had other partition counts before."""
    clock = ManualClock(START_US)
    log = Log(str(folder), storage=LocalStorage(), clock=clock)
    log.create_topic("orders", ORDERS, partitions=2, key=["customer"], time="at")
    log.create_topic("stock", STOCK, partitions=3, key=["item"], table=True)
    with log.producer("stock") as producer:
        producer.append(stock(nut=1, bolt=2, axle=3))
    with log.transaction("billing") as transaction:
        transaction.append("orders", orders(0, 9))
        clock.sleep_us(1_000)
        log.repartition("orders", 5)
        transaction.append("orders", orders(9, 4))
    with log.transaction("billing") as transaction:
        transaction.append("orders", orders(13, 9))
        log.repartition("orders", 1)
        transaction.abort()
    with log.producer("orders") as producer:
        producer.append(orders(22, 3))
    clock.sleep_us(1_000)
    log.repartition("stock", 1)
    with log.producer("stock") as producer:
        producer.append(stock(nut=10))
        producer.delete(pa.table({"item": ["bolt"]}))
    return log


SHORTENED_FOLDER = HERE / "shortened-1"


def write_shortened(folder: Path) -> Log:
    """Write a log whose control topic begins with a snapshot; some decisions lie behind it."""
    clock = ManualClock(START_US)
    log = Log(str(folder), storage=LocalStorage(), clock=clock)
    log.create_topic("orders", ORDERS, key=["customer"], time="at")
    with patch.object(control_topic, "SHORTEN_BYTES", 5_000):
        job = log.transactions.writer("job")
        waiting = log.transactions.writer("waiting")
        producer = log.producer("orders", writer=waiting)
        for number in range(1, 12):
            with log.transaction("script") as transaction:
                transaction.append("orders", orders(number, 1))
                if number % 4 == 3:
                    transaction.abort()
            clock.sleep_us(1_000)
            log.producer("orders", writer=job).append(orders(100 + number, 1), transaction=number)
            log.topic("orders").partition(0).sync()
            outcome: Literal["commit", "abort"] = "abort" if number == 5 else "commit"
            log.transactions.decide(job, number, outcome, json.dumps({"n": number}).encode())
    producer.append(orders(200, 2), transaction=1)
    log.transactions.prepare(waiting, 1, [("orders", 0)])
    log.transactions.decide(job, 12, "abort")
    return log


def write_all(folder: Path) -> None:
    """Write every golden partition and what is in it."""
    for name in SCHEMAS:
        partition = write_partition(folder, name)
        text = json.dumps(describe(partition), indent=1, default=str)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    folders = FOLDER, LOG_FOLDER, COMPACTED_FOLDER, REPARTITIONED_FOLDER, SHORTENED_FOLDER
    if all(folder.exists() for folder in folders):
        sys.exit(f"{HERE} has all folders; remove them if the format's version changed")
    if not FOLDER.exists():
        write_all(FOLDER)
    if not LOG_FOLDER.exists():
        write_log(LOG_FOLDER)  # log-1.json is what `tests/log/plain_reader.py` reads of it
    if not COMPACTED_FOLDER.exists():
        write_compacted(COMPACTED_FOLDER)
    if not REPARTITIONED_FOLDER.exists():
        write_repartitioned(REPARTITIONED_FOLDER)
    if not SHORTENED_FOLDER.exists():
        write_shortened(SHORTENED_FOLDER)
    for each in (path for folder in folders for path in folder.rglob("*")):
        # As of one boot, and of one process: not part of the format's golden bytes.
        if each.is_file() and (each.suffix == ".lock" or each.name in {"bells", "control", "epochs"}):
            each.unlink()
