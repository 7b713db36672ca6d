"""A reader of logs written from FORMAT.md, with pyarrow alone: it knows nothing of our code.

It believes every frame whose checksums hold, as a reader without control files may.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

FRAME_HEADER = struct.Struct("<4sIIIqqqqqqqqqqII")
SEGMENT_HEADER = struct.Struct("<4sIIIqqqqI8xI")


class DamageError(Exception):
    """Bytes are not what FORMAT.md says."""


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _crc_table()


def crc(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def check(holds: bool, what: str) -> None:
    if not holds:
        raise DamageError(what)


def table_field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer table lies; 0: left out."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    distance: int = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
    return table + distance if distance else 0


def follow(metadata: bytes, position: int) -> int:
    return position + int(struct.unpack_from("<I", metadata, position)[0])


def body_length(metadata: bytes) -> int:
    position = table_field(metadata, follow(metadata, 0), 3)
    return int(struct.unpack_from("<q", metadata, position)[0]) if position else 0


def buffer_ranges(metadata: bytes) -> list[tuple[int, int]]:
    """`RecordBatch.buffers` of a message: offset in the body and length of each."""
    message = follow(metadata, 0)
    batch = follow(metadata, table_field(metadata, message, 2))
    if metadata[table_field(metadata, message, 1)] == 2:  # a DictionaryBatch
        batch = follow(metadata, table_field(metadata, batch, 1))
    position = table_field(metadata, batch, 2)
    if not position:
        return []
    vector = follow(metadata, position)
    count = struct.unpack_from("<I", metadata, vector)[0]
    return [struct.unpack_from("<qq", metadata, vector + 4 + 16 * i) for i in range(count)]


def is_compressed(metadata: bytes) -> bool:
    message = follow(metadata, 0)
    batch = follow(metadata, table_field(metadata, message, 2))
    if metadata[table_field(metadata, message, 1)] == 2:
        batch = follow(metadata, table_field(metadata, batch, 1))
    return table_field(metadata, batch, 3) != 0


def dictionaries_of(type_: pa.DataType) -> int:
    if pa.types.is_dictionary(type_):
        return 1
    if pa.types.is_map(type_):
        return dictionaries_of(type_.key_type) + dictionaries_of(type_.item_type)
    return sum(dictionaries_of(type_.field(index).type) for index in range(type_.num_fields))


def buffers_of(type_: pa.DataType) -> int:
    types = pa.types
    if types.is_dictionary(type_):
        return 2
    if types.is_null(type_):
        return 0
    if types.is_map(type_):
        return 2 + 1 + buffers_of(type_.key_type) + buffers_of(type_.item_type)
    children = sum(buffers_of(type_.field(index).type) for index in range(type_.num_fields))
    if types.is_struct(type_) or types.is_fixed_size_list(type_):
        return 1 + children
    if types.is_list(type_) or types.is_large_list(type_):
        return 2 + children
    variable = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return 3 if any(each(type_) for each in variable) else 2


@dataclass(frozen=True)
class PlainFrame:
    batch: pa.RecordBatch
    base_offset: int
    row_count: int
    max_timestamp_us: int
    owner_id: int
    epoch: int
    sequence: int
    transaction: int
    appended_us: int
    durable_offset: int
    flags: int

    @property
    def end_offset(self) -> int:
        """The base offset of the next frame."""
        return self.durable_offset if self.flags & 2 else self.base_offset + self.row_count

    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        """(offset, row) of all rows, without the columns that stand for what others lack."""
        rows = self.batch.to_pylist()
        offsets = range(self.base_offset, self.end_offset)
        found = []
        for offset, row in zip(offsets, rows, strict=False):
            own = row.pop("_offset", offset)
            row.pop("_timestamp", None)
            found.append((own, row))
        return found


def check_message(metadata: bytes, body: bytes) -> None:
    """What a message declares of itself is so, and no more than a reader has room for."""
    check(body_length(metadata) == len(body), "body length")
    if is_compressed(metadata):
        declared = [
            struct.unpack_from("<q", body, offset)[0]
            for offset, length in buffer_ranges(metadata)
            if length
        ]
        check(min(declared, default=0) >= -1 and sum(declared) <= 2**31, "uncompressed length")


def read_frame(
    content: bytes, position: int, schema: pa.Schema, head: bytes
) -> tuple[PlainFrame, int]:
    """The frame at `position`, all of it checked, and its length."""
    count = len(schema)
    owners = [i for i, column in enumerate(schema) for _ in range(dictionaries_of(column.type))]
    header_size = -(-(104 + 4 * count + 12 * len(owners) + 4) // 64) * 64
    check(len(content) >= position + 8, "prefix")
    continuation, metadata_size = struct.unpack_from("<Ii", content, position)
    check(continuation == 0xFFFFFFFF and metadata_size % 64 == 56, "prefix")
    end = position + 8 + metadata_size
    check(metadata_size >= header_size and end <= len(content), "metadata length")
    stored = struct.unpack_from("<I", content, end - 4)[0]
    check(crc(content[position : end - 4]) == stored, "header checksum")
    header = end - header_size
    magic, version, size, columns, frame_size, *fields, dictionaries = FRAME_HEADER.unpack_from(
        content, header
    )
    check((magic, version, size, columns) == (b"MSfh", 1, header_size, count), "header")
    check(dictionaries == len(owners), "number of dictionaries")
    check(position + frame_size <= len(content), "frame length")
    # (flatbuffer, start of the message, start of its body) of each message.
    messages = [(content[position + 8 : header], position, end)]
    for index in range(dictionaries):
        start, size, stored = struct.unpack_from(
            "<III", content, header + 104 + 4 * count + 12 * index
        )
        start, size = position + 64 * start, 64 * size
        check(crc(content[start : start + size]) == stored, "message checksum")
        messages.append((content[start + 8 : start + size], start, start + size))
    ends = [start for _, start, _ in messages[1:]] + [position + frame_size]
    bodies = [content[body:stop] for (_, _, body), stop in zip(messages, ends, strict=True)]
    for (metadata, _, _), body in zip(messages, bodies, strict=True):
        check_message(metadata, body)
    checksums = [b""] * count
    for owner, body in zip(owners, bodies, strict=False):
        checksums[owner] += body
    offsets, body = [offset for offset, _ in buffer_ranges(messages[-1][0])], bodies[-1]
    first = 0
    for index, column in enumerate(schema):
        last = first + buffers_of(column.type)
        start = offsets[first] if first < len(offsets) else len(body)
        stop = offsets[last] if last < len(offsets) else len(body)
        covered = checksums[index] + body[start : stop if first < last else start]
        expected = struct.unpack_from("<I", content, header + 104 + 4 * index)[0]
        check(crc(covered) == expected, column.name)
        first = last
    # The head's schema message and a frame are a stream.
    batch = pa.ipc.open_stream(head + content[position : position + frame_size]).read_next_batch()
    frame = PlainFrame(batch, *fields)
    check(batch.num_rows == frame.row_count, "row count")
    check((frame.row_count == 0) == bool(frame.flags & 1), "control marker")
    check(frame.flags < 8 and (frame.flags & 2 == 0 or "_offset" in schema.names), "flags")
    return frame, frame_size


def read_segment(path: Path, is_last: bool) -> tuple[list[PlainFrame], int]:
    """The frames of a segment, and the offset that it reaches."""
    content = path.read_bytes()
    size = 8 + struct.unpack_from("<i", content, 4)[0]
    fields = SEGMENT_HEADER.unpack_from(content, size - 64)
    magic, version, header_size, count, base, head, _, compacted_end, compactions, stored = fields
    check(crc(content[: size - 4]) == stored, "segment checksum")
    check((magic, version, header_size, head) == (b"MSsh", 1, 64, size), "segment header")
    check(base == int(path.stem), "base offset")
    schema = pa.ipc.read_schema(pa.py_buffer(content[:size]))
    check(len(schema) == count, "columns")
    frames: list[PlainFrame] = []
    position, offset = size, base
    while position < len(content):
        try:
            frame, frame_size = read_frame(content, position, schema, content[:size])
        except DamageError:
            check(is_last, "a sealed segment")
            break  # a torn tail
        check(frame.base_offset == offset, "offset")
        frames.append(frame)
        position += frame_size
        offset = frame.end_offset
    check((compacted_end > 0) == (compactions > 0), "compacted end")
    return frames, max(offset, compacted_end)


@dataclass(frozen=True)
class PlainIndex:
    """An index file: (base offset, position, largest timestamp) of each block, and statistics."""

    entries: list[tuple[int, int, int]]
    statistics: list[dict[str, Any]]


def read_index(path: Path) -> PlainIndex:
    content = path.read_bytes()
    magic, version, base, _, _, _, count, size = struct.unpack_from("<4sI6q", content)
    check((magic, version, base) == (b"MSix", 1, int(path.stem)), "index header")
    start = 56 + 24 * count
    check(len(content) == start + size + 4, "index length")
    check(crc(content[:-4]) == struct.unpack_from("<I", content, len(content) - 4)[0], "index CRC")
    entries = list(struct.iter_unpack("<qqq", content[56:start]))
    stream = pa.ipc.open_stream(content[start : start + size])
    statistics = stream.read_next_batch().to_pylist()
    check(len(statistics) == count, "statistics")
    return PlainIndex(entries, statistics)


def read_producers(path: Path) -> dict[int, tuple[int, int]]:
    """By owner id: the sequence of its last sequenced frame before a segment, and its end."""
    content = path.read_bytes()
    magic, version, base, count = struct.unpack_from("<4sIqq", content)
    check((magic, version, base) == (b"MSpr", 1, int(path.stem)), "producers' header")
    check(len(content) == 24 + 24 * count + 4, "producers' length")
    check(crc(content[:-4]) == struct.unpack_from("<I", content, len(content) - 4)[0], "CRC")
    entries = list(struct.iter_unpack("<qqq", content[24:-4]))
    check(entries == sorted(entries), "producers' order")
    return {owner_id: (sequence, end) for owner_id, sequence, end in entries}


def check_producers(folder: Path, frames: list[PlainFrame]) -> None:
    """Sequences only grow, and the files say what they are; `frames` are all that ever were."""
    sequenced = [each for each in frames if each.flags & 4]
    files = {int(path.stem): read_producers(path) for path in folder.glob("*.producers")}
    for base, stored in files.items():
        before = [each for each in sequenced if each.base_offset < base]
        check(
            stored == {each.owner_id: (each.sequence, each.end_offset) for each in before}, "last"
        )
    last: dict[int, int] = {}
    for each in sequenced:
        check(each.sequence > last.get(each.owner_id, 0), "sequence")
        last[each.owner_id] = each.sequence


def read_partition(folder: Path) -> list[PlainFrame]:
    paths = sorted(folder.glob("*.arrows"))
    frames: list[PlainFrame] = []
    reached = None
    for path in paths:
        if path.stat().st_size == 0:
            continue  # its head was still to be written
        if reached is not None and int(path.stem) < reached:
            continue  # a leftover of what a compacted segment replaced
        check(reached in {None, int(path.stem)}, "gap")
        found, reached = read_segment(path, path == paths[-1])
        frames += found
    if frames and frames[0].base_offset == 0 and not any(each.flags & 2 for each in frames):
        check_producers(folder, frames)
    return frames


@dataclass
class Control:
    """What the control topic says."""

    owners: dict[int, str] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    decisions: dict[tuple[int, int, int], str] = field(default_factory=dict)
    manifests: dict[int, Any] = field(default_factory=dict)
    ranges: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        match record["type"]:
            case "owner":
                self.owners[record["owner_id"]] = record["owner"]
            case "epoch":
                check(record["epoch"] == self.epochs.get(record["owner_id"], 0) + 1, "epoch")
                self.epochs[record["owner_id"]] = record["epoch"]
            case "prepared":
                pass
            case "snapshot":
                owners = record["owners"]
                self.owners = {each["owner_id"]: each["owner"] for each in owners}
                self.epochs = {each["owner_id"]: each["epoch"] for each in owners}
                named = [each for each in owners if "manifest" in each]
                self.manifests = {each["owner_id"]: each["manifest"] for each in named}
                self.decisions = {}
                self.ranges = [
                    (each["owner_id"], run) for each in owners for run in each.get("decided", [])
                ]
            case "decision":
                key = (record["owner_id"], record["epoch"], record["number"])
                check(self.decisions.setdefault(key, record["outcome"]) == record["outcome"], "two")
                if record["outcome"] == "commit" and "manifest" in record:
                    self.manifests[record["owner_id"]] = record["manifest"]
            case other:
                raise DamageError(other)

    def state(self, frame: PlainFrame) -> str:
        key = (frame.owner_id, frame.epoch, frame.transaction)
        if not frame.transaction:
            return "commit"
        if key in self.decisions:
            return self.decisions[key]
        for owner_id, run in self.ranges:
            if owner_id == frame.owner_id and run["first"] <= frame.epoch <= run["last"]:
                for name, outcome in (("committed", "commit"), ("aborted", "abort")):
                    if any(low <= frame.transaction <= high for low, high in run.get(name, [])):
                        return outcome
        if self.epochs.get(frame.owner_id, 0) > frame.epoch:
            return "abort"
        return "undecided"


def read_control(log: Path) -> Control:
    control = Control()
    if (log / "control").exists():
        for frame in read_partition(log / "control"):
            for record in frame.batch.column("record").to_pylist():
                control.add(json.loads(record))
    return control


@dataclass(frozen=True)
class PlainTopic:
    """A topic of a log, by its `topic.json`."""

    log: Path
    config: dict[str, Any]

    @property
    def schema(self) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.config["schema"])))

    def places(self) -> list[tuple[int, int]]:
        """(generation, partition) in the order in which they are read."""
        older = [
            (each["generation"], partition)
            for each in self.config["older"]
            for partition in range(len(each["ends"]))
        ]
        present = self.config["generation"]
        return older + [(present, each) for each in range(self.config["partitions"])]

    def frames(self, partition: int, generation: int | None = None) -> list[PlainFrame]:
        config = self.config
        generation = config["generation"] if generation is None else generation
        folder = self.log / "topics" / config["id"] / str(generation) / str(partition)
        frames = read_partition(folder)
        for each in config["older"]:
            if each["generation"] == generation:
                end = frames[-1].end_offset if frames else 0
                check(end == each["ends"][partition], "seam")
        return frames

    def stable_end(self, partition: int, generation: int | None = None) -> int:
        control = read_control(self.log)
        end = 0
        for frame in self.frames(partition, generation):
            if control.state(frame) == "undecided":
                break
            end = frame.end_offset
        return end

    def committed(
        self, partition: int, generation: int | None = None
    ) -> list[tuple[int, dict[str, Any]]]:
        """(offset, row) of all rows that a read-committed reader sees, `_op` included."""
        control = read_control(self.log)
        rows = []
        for frame in self.frames(partition, generation):
            state = control.state(frame)
            if state == "undecided":
                break
            if state == "commit":
                rows += frame.rows()
        return rows

    def latest(self) -> list[dict[str, Any]]:
        """What a table holds now."""
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for generation, partition in self.places():
            for _, row in self.committed(partition, generation):
                key = tuple(row[name] for name in self.config["key"])
                operation = row.pop("_op")
                rows.pop(key, None)
                if operation == 0:
                    rows[key] = row
        return list(rows.values())


def read_topics(log: Path) -> dict[str, PlainTopic]:
    topics = {}
    for folder in (log / "topics").iterdir():
        if (folder / "topic.json").exists():
            config = json.loads((folder / "topic.json").read_text("utf-8"))
            check(config["id"] == folder.name, "id")
            topics[config["name"]] = PlainTopic(log, config)
    return topics
