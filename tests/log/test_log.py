"""A log's directory: topics are created, listed, found and removed, by any number of processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import (
    InvalidTopicError,
    MillstreamError,
    TopicExistsError,
    UnknownTopicError,
)
from millstream.log import Log
from millstream.log.checked_json import checked_json
from millstream.log.topic_config import TopicConfig
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import (
    PATH,
    SCHEMA,
    another,
    ids_of,
    log_on,
    memory,
    memory_log,
    put,
    rows,
)

ROOT = Path(__file__).resolve().parent.parent.parent
TIMED = pa.schema([("at", pa.timestamp("ms")), ("id", pa.int64()), ("tags", pa.list_(pa.int8()))])


class TestReadingALogThatIsNotThere:
    def test_it_is_empty_and_is_not_made(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "none")
        assert log.topic_names() == []
        assert log.transactions.owners() == []
        assert log.transactions.prepared() == []
        assert log.transactions.newest_manifest("job") is None
        with pytest.raises(UnknownTopicError, match="there are none"):
            log.topic("flights")
        with pytest.raises(UnknownTopicError):
            log.producer("flights")
        with pytest.raises(UnknownTopicError):
            log.delete_topic("flights")
        assert not (tmp_path / "none").exists()

    def test_a_bad_topic_makes_no_log(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidTopicError):
            Log(tmp_path / "none").create_topic("a/b", SCHEMA)
        assert not (tmp_path / "none").exists()

    def test_looking_at_topics_makes_no_control_topic(self, tmp_path: Path) -> None:
        Log(tmp_path).create_topic("flights", SCHEMA)
        log = Log(tmp_path)
        topic = log.topic("flights")
        topic.describe()
        assert topic.to_arrow().num_rows == 0
        assert not (tmp_path / "control").exists()

    def test_one_that_was_made_meanwhile_is_seen(self, tmp_path: Path) -> None:
        early = Log(tmp_path / "log")
        assert early.transactions.owners() == []
        Log(tmp_path / "log").transactions.writer("billing")
        assert early.transactions.owners() == ["billing"]


class TestCreating:
    def test_a_topic_is_what_it_was_created_as(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "a" / "log")
        schema = TIMED.with_metadata({"team": "ops"})
        made = log.create_topic(
            "flights", schema, partitions=3, key=["id"], time="at", table=True, durability="os",
            config={"segment.bytes": 12_345},
        )  # fmt: skip
        for each in (made, Log(tmp_path / "a" / "log").topic("flights")):
            config = each.config
            assert (each.name, each.partitions, config.id) == ("flights", 3, "00000001")
            assert each.schema.equals(schema, check_metadata=True)
            assert (config.key, config.time, config.table) == (("id",), "at", True)
            assert (config.durability, config.settings.segment_bytes) == ("os", 12_345)
        assert log.create_topic("planes", SCHEMA).config.id == "00000002"
        assert log.topic_names() == ["flights", "planes"]

    def test_the_description_is_for_people_too(self, tmp_path: Path) -> None:
        topic = Log(tmp_path).create_topic("flights", TIMED)
        described = json.loads((Path(topic.directory) / "topic.json").read_text())
        assert described["columns"]["at"] == "timestamp[ms]"

    def test_a_name_is_taken_once(self, tmp_path: Path) -> None:
        log = Log(tmp_path)
        topic = log.create_topic("flights", SCHEMA)
        put(log, "flights", [1])
        with pytest.raises(TopicExistsError, match="'flights' exists already"):
            Log(tmp_path).create_topic("flights", TIMED)
        again = Log(tmp_path).create_topic("flights", TIMED, if_not_exists=True)
        assert again.config == topic.config
        assert ids_of(again.to_arrow()) == [1]

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "a/b", "../up", "/etc/passwd", "a\0", "é", "a b", "x" * 250, "a\n"]
    )
    def test_bad_names_are_refused(self, name: str) -> None:
        log = memory_log()
        with pytest.raises(InvalidTopicError, match="cannot be a topic's name"):
            log.create_topic(name, SCHEMA)
        with pytest.raises(InvalidTopicError):
            log.topic(name)
        assert log.topic_names() == []

    def test_the_longest_name(self) -> None:
        log = memory_log()
        name = "x" * 249
        log.create_topic(name, SCHEMA)
        assert log.topic(name).name == name

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"partitions": 0}, "1 to 4096 partitions; got 0"),
            ({"partitions": 4097}, "got 4097"),
            ({"config": {"segment.bytes": 0}}, "number from 1 to .*; got 0"),
            ({"config": {"cleanup.policy": "compact"}}, "without key columns"),
            ({"durability": "disk"}, "'fsync' or 'os'; got 'disk'"),
            ({"key": ["ix"]}, "no column 'ix' for its key or time; did you mean 'id'"),
            ({"key": ["id", "id"]}, "names a key column twice"),
            ({"key": ["tags"]}, "'tags' of topic 'x' is list<.*which cannot be a key"),
            ({"time": "when"}, "no column 'when'"),
            ({"time": "id"}, "must be a timestamp; it is int64"),
            ({"table": True}, "needs key columns"),
            ({"schema": pa.schema([])}, "needs columns"),
            ({"schema": pa.schema([("a", pa.int8()), ("a", pa.int8())])}, "names that differ"),
            ({"schema": pa.schema([("_offset", pa.int64())])}, "'_offset'.*are the system's"),
            ({"schema": pa.schema([("", pa.int64())])}, "are the system's"),
            ({"schema": pa.schema([("u", pa.uuid())])}, "cannot hold"),
        ],
    )
    def test_bad_options_are_refused(self, options: dict[str, object], message: str) -> None:
        log = memory_log()
        with pytest.raises(InvalidTopicError, match=message):
            log.create_topic("x", **{"schema": TIMED, **options})
        assert log.topic_names() == []
        assert log.create_topic("x", TIMED).config.id == "00000001"

    def test_many_processes_may_create_at_once(self, tmp_path: Path) -> None:
        program = (
            "import sys, pyarrow as pa; from millstream.log import Log\n"
            "log = Log(sys.argv[1]); schema = pa.schema([('id', pa.int64())])\n"
            "for each in range(10):\n"
            "    log.create_topic(f'own-{sys.argv[2]}-{each}', schema)\n"
            "    log.create_topic(f'shared-{each}', schema, if_not_exists=True)\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", program, tmp_path / "log", str(i)], cwd=ROOT)
            for i in range(3)
        ]
        assert [each.wait() for each in processes] == [0, 0, 0]
        names = Log(tmp_path / "log").topic_names()
        assert len(names) == 40
        ids = {Log(tmp_path / "log").topic(name).config.id for name in names}
        assert ids == {f"{each:08d}" for each in range(1, 41)}


class TestFinding:
    def test_an_unknown_topic_names_the_nearest(self) -> None:
        log = memory_log()
        for name in ("flights", "planes", "airports"):
            log.create_topic(name, SCHEMA)
        for ask in (log.topic, log.producer, log.consumer, log.delete_topic):
            with pytest.raises(UnknownTopicError, match=r"no topic 'flihgts'.*mean 'flights'"):
                ask("flihgts")
        with pytest.raises(UnknownTopicError, match="there are: 'airports', 'flights', 'planes'"):
            log.topic("zzz")

    def test_the_default_log_is_that_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert Log.default().path == str(tmp_path / "data")
        monkeypatch.setenv("MILLSTREAM_LOG", "elsewhere")
        assert Log.default().path == str(tmp_path / "elsewhere")

    def test_damaged_descriptions_are_named(self, tmp_path: Path) -> None:
        topic = Log(tmp_path).create_topic("flights", SCHEMA)
        path = Path(topic.directory) / "topic.json"
        whole = path.read_text()
        for damaged in (whole[:-20], whole.replace('"fsync"', '"tape"'), "{}", whole[:50] + "}"):
            path.write_text(damaged)
            with pytest.raises(InvalidTopicError, match=r"topic\.json is damaged"):
                Log(tmp_path).topic_names()
        path.write_text(whole)
        assert Log(tmp_path).topic_names() == ["flights"]
        numbers = tmp_path / "log.json"
        newer = checked_json(b'{"format": 2}')
        for content, message in ((b"{", "is damaged"), (newer, "format 2; update")):
            numbers.write_bytes(content)
            with pytest.raises(InvalidTopicError, match=message):
                Log(tmp_path).create_topic("planes", SCHEMA)

    def test_foreign_files_are_left_alone(self, tmp_path: Path) -> None:
        Log(tmp_path).create_topic("flights", SCHEMA)
        (tmp_path / "topics" / "folder").mkdir()
        (tmp_path / "topics" / ".DS_Store").write_text("")
        assert Log(tmp_path).topic_names() == ["flights"]


class TestDeleting:
    def test_a_deleted_topic_is_gone_for_everybody(self, tmp_path: Path) -> None:
        log, other = Log(tmp_path), Log(tmp_path)
        topic = log.create_topic("flights", SCHEMA)
        put(other, "flights", [1, 2])
        log.delete_topic("flights")
        for each in (log, other):
            assert each.topic_names() == []
            with pytest.raises(UnknownTopicError):
                each.topic("flights")
        assert not Path(topic.directory).exists()

    def test_who_has_it_open_is_told(self, tmp_path: Path) -> None:
        log, other = Log(tmp_path), Log(tmp_path)
        log.create_topic("flights", SCHEMA, config={"segment.bytes": 1_000})
        producer = other.producer("flights")
        for each in range(6):
            producer.append(rows(each))
        reader = other.topic("flights").reader(0)
        assert ids_of(reader.read(rows_max=1)) == [0]
        log.delete_topic("flights")
        log.create_topic("flights", SCHEMA)
        for call in (
            lambda: producer.append(rows(6)),
            producer.flush,
            lambda: list(iter(reader.read, None)),
        ):
            with pytest.raises(UnknownTopicError, match="flights/0 is gone: its topic was deleted"):
                call()
        put(other, "flights", [7])
        assert ids_of(log.topic("flights").to_arrow()) == [7]

    def test_the_next_of_that_name_is_another_topic(self, tmp_path: Path) -> None:
        log, other = Log(tmp_path), Log(tmp_path)
        log.create_topic("flights", SCHEMA)
        put(other, "flights", [1, 2])
        log.delete_topic("flights")
        again = log.create_topic("flights", TIMED)
        assert again.config.id == "00000002"
        assert other.topic("flights").schema == TIMED
        assert other.topic("flights").to_arrow().num_rows == 0


class TestCrashes:
    """A process dies in any effect of creating or deleting a topic, perhaps the machine too."""

    @pytest.mark.parametrize("power", [False, True])
    def test_a_topic_is_there_or_not(self, power: bool) -> None:
        counted = memory_log()
        counted.create_topic("flights", SCHEMA)
        for fatal in range(1, counted.storage.effects + 1):  # type: ignore[attr-defined]
            disk = MemoryDisk(random.Random(fatal))
            storage = disk.storage("a")
            storage.crash_after(fatal)
            with pytest.raises(SimulatedCrash):
                log_on(storage).create_topic("flights", SCHEMA)
            if power:
                disk.power_cut()
            log = log_on(disk.storage("b"))
            assert log.topic_names() in ([], ["flights"])
            number = int(log.create_topic("flights", SCHEMA, if_not_exists=True).config.id)
            put(log, "flights", [7])
            assert int(log.create_topic("planes", SCHEMA).config.id) > number
            disk.power_cut()
            log = log_on(disk.storage("c"))
            assert log.topic_names() == ["flights", "planes"]
            assert ids_of(log.topic("flights").to_arrow()) == [7]

    @pytest.mark.parametrize("power", [False, True])
    def test_a_deleted_topic_is_whole_or_gone(self, power: bool) -> None:
        for fatal in range(1, 30):
            disk = MemoryDisk(random.Random(fatal))
            storage = disk.storage("a")
            log = log_on(storage)
            log.create_topic("flights", SCHEMA)
            put(log, "flights", [1, 2])
            before = storage.effects
            storage.crash_after(fatal)
            try:
                log.delete_topic("flights")
            except SimulatedCrash:
                deleted = False
            else:
                deleted = True
                assert fatal > storage.effects - before
            if power:
                disk.power_cut()
            log = log_on(disk.storage("b"))
            if log.topic_names() == ["flights"]:
                assert not deleted
                assert ids_of(log.topic("flights").to_arrow()) == [1, 2]
                log.delete_topic("flights")
            assert log.create_topic("flights", SCHEMA).to_arrow().num_rows == 0
        assert deleted


@settings(max_examples=200)
@given(st.text(max_size=300))
def test_no_name_leads_out_of_the_log(name: str) -> None:
    log = memory_log()
    try:
        topic = log.create_topic(name, SCHEMA)
    except InvalidTopicError:
        return
    assert topic.directory == f"{PATH}/topics/00000001"
    assert log.topic(name).name == name


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_a_description_is_understood_or_refused(content: bytes) -> None:
    with pytest.raises(MillstreamError):
        TopicConfig.from_json(content, "topic.json")


def test_any_flipped_bit_of_a_description_is_told() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    path = "/log/topics/00000001/topic.json"
    content = memory(log).read_file(path)
    for name in ("/log/topics/00000001/topic.json", "/log/log.json"):
        whole = memory(log).read_file(name)
        for position in range(0, len(whole) * 8, 3):
            flipped = bytearray(whole)
            flipped[position // 8] ^= 1 << position % 8
            memory(log).write_file(name, bytes(flipped))
            with pytest.raises(InvalidTopicError, match=f"{name} is damaged"):
                another(log).create_topic("b", SCHEMA)
        memory(log).write_file(name, whole)
    assert memory(log).read_file(path) == content
    another(log).create_topic("b", SCHEMA)
