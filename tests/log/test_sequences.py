"""Named producers: an append that is made again is stored once, whoever died in between."""

from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.errors import FencedError, LogError, OptionError, SequenceError
from millstream.log import Log
from millstream.log.sequences import Sequences, StoredAppend, sequences_file_name
from tests.log.log_kit import SCHEMA, another, ids_of, memory, memory_log, rows
from tests.log.schedules import producers_that_die


@pytest.fixture
def log() -> Log:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=3, key=["id"])
    return log


def all_ids(log: Log) -> list[int]:
    return sorted(ids_of(log.topic("a").to_arrow()))


def test_an_append_that_is_made_again_is_stored_once(log: Log) -> None:
    producer = log.producer("a", name="p")
    assert (producer.sequence, producer.stored_sequences()) == (0, [0, 0, 0])
    producer.append(rows(1, 2, 3, 4))
    producer.append(rows(5), sequence=7)
    producer.append(rows(5), sequence=7)
    producer.append(rows(6))
    assert producer.sequence == 8
    producer.flush()
    assert all_ids(log) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(SequenceError, match="sequence 3 comes after 8"):
        producer.append(rows(9), sequence=3)
    with pytest.raises(OptionError, match="from 1 to"):
        producer.append(rows(9), sequence=0)
    with pytest.raises(OptionError, match="outside of transactions"):
        producer.append(rows(9), transaction=1)
    with pytest.raises(OptionError, match="named producer"):
        log.producer("a").append(rows(9), sequence=1)


def test_another_life_goes_on_where_the_one_before_was_cut_off(log: Log) -> None:
    first = log.producer("a", name="p")
    first.append(rows(*range(10)), sequence=41)
    first.append(rows(10), sequence=42)
    other = another(log)
    second = other.producer("a", name="p")
    assert second.sequence == 42
    assert max(second.stored_sequences()) == 42
    second.append(rows(*range(10)), sequence=41)  # from what it had saved
    second.append(rows(10), sequence=42)
    second.append(rows(11), sequence=43)
    second.flush()
    assert all_ids(log) == list(range(12))
    with pytest.raises(FencedError):
        first.append(rows(12))


def test_names_do_not_get_into_each_others_way(log: Log) -> None:
    one, other = log.producer("a", name="one"), log.producer("a", name="other")
    for index in range(5):
        one.append(rows(index), sequence=index + 1)
        other.append(rows(100 + index), sequence=index + 1)
        log.producer("a").append(rows(200 + index))
    assert one.sequence == other.sequence == 5
    one.flush()
    assert len(all_ids(log)) == 15


def test_the_same_rows_go_again_after_a_refusal(log: Log) -> None:
    producer = log.producer("a", name="p")
    batch = rows(*range(30))
    memory(log).fail("append", OSError(28, "No space left on device"), after=1)
    with pytest.raises(LogError):
        producer.append(batch)
    for index in range(3):
        log.topic("a").partition(index).verify()
    producer.append(batch)
    producer.append(rows(30))
    producer.flush()
    assert all_ids(log) == list(range(31))
    assert producer.sequence == 2


def test_without_a_key_the_number_chooses_the_partition() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=3)
    for _ in range(2):
        producer = another(log).producer("a", name="p")
        for index in range(6):
            producer.append(rows(index), sequence=index + 1)
        producer.flush()
    assert all_ids(log) == list(range(6))


class TestTheFile:
    def make(self, *, segments: int = 4, other: bool = False) -> Log:
        log = memory_log()
        log.create_topic("a", SCHEMA, config={"segment.bytes": 1_500})
        producer = log.producer("a", name="p")
        partition = log.topic("a").partition(0)
        index = 0
        while len(partition.segments()) < segments:
            index += 1
            producer.append(rows(index), sequence=index)
            if other:
                another(log).producer("a").append(rows(-index))
            producer.flush()
        return log

    def files(self, log: Log) -> list[str]:
        folder = log.topic("a").partition(0).directory
        return [each for each in log.storage.list_directory(folder) if "producers" in each]

    def again(self, log: Log) -> None:
        """All that was appended comes again, in another process, and nothing is stored."""
        before = log.topic("a").durable_ends()
        producer = another(log).producer("a", name="p")
        for index in range(1, producer.sequence + 1):
            producer.append(rows(index), sequence=index)
        producer.flush()
        assert log.topic("a").durable_ends() == before
        producer.append(rows(1_000))
        producer.flush()
        assert log.topic("a").durable_ends()[0] == before[0] + 1

    @pytest.mark.parametrize("other", [False, True])
    def test_each_segment_has_one_but_the_first(self, other: bool) -> None:
        log = self.make(other=other)
        bases = [base for base, _ in log.topic("a").partition(0).segments()]
        assert self.files(log) == [sequences_file_name(base) for base in bases[1:]]
        self.again(log)

    def test_it_is_made_anew_where_it_is_missing_or_wrong(self) -> None:
        for damage in ("missing", "flipped", "cut", "of another segment", "all missing"):
            log = self.make()
            folder = log.topic("a").partition(0).directory
            files = self.files(log)
            path = f"{folder}/{files[-1]}"
            content = log.storage.read_file(path)
            match damage:
                case "missing":
                    log.storage.remove(path)
                case "all missing":
                    for each in files:
                        log.storage.remove(f"{folder}/{each}")
                case "flipped":
                    log.storage.write_file(path, bytes([*content[:30], 255, *content[31:]]))
                case "cut":
                    log.storage.write_file(path, content[:-1])
                case _:
                    earlier = log.storage.read_file(f"{folder}/{files[0]}")
                    log.storage.write_file(path, earlier)
            self.again(log)
            assert log.storage.read_file(path) == content, damage

    def test_it_outlives_the_segments_before_it(self) -> None:
        log = self.make(segments=5)
        log.clock.sleep_us(10**12)
        log.alter_topic("a", config={"retention.ms": 1_000})
        log.clean()
        left = [base for base, _ in log.topic("a").partition(0).segments()]
        assert left[0] > 0
        files = self.files(log)
        assert sequences_file_name(left[0]) == files[0]  # nothing is left of what is gone
        self.again(log)

    def test_every_flipped_bit_is_noticed(self) -> None:
        sequences = Sequences(7, 0, 7, stored={1: StoredAppend(5, 6), 3: StoredAppend(2, 4)})
        content = sequences.encode()
        assert Sequences.try_decode(content, 7) == sequences
        for position in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[position // 8] ^= 1 << position % 8
            assert not isinstance(Sequences.try_decode(bytes(flipped), 7), Sequences)
        for size in range(len(content)):
            assert not isinstance(Sequences.try_decode(content[:size], 7), Sequences)
        assert not isinstance(Sequences.try_decode(content, 8), Sequences)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_dies_every_row_is_there_once_and_in_order(seed: int) -> None:
    producers_that_die(seed)


def test_rows_that_a_failed_sync_took_are_missed(log: Log) -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    producer = log.producer("a", name="p")
    producer.append(rows(1), sequence=1)
    producer.flush()
    producer.append(rows(2), sequence=2)
    memory(log).fail("sync", OSError(5, "Input/output error"))
    with pytest.raises(LogError):
        producer.flush()
    log.topic("a").partition(0).verify()
    producer.append(rows(2), sequence=2)
    producer.append(rows(3), sequence=3)
    producer.flush()
    assert all_ids(log) == [1, 2, 3]


def test_a_gap_is_an_error() -> None:
    log = memory_log()
    log.create_topic("a", pa.schema([("id", pa.int64())]))
    partition = log.topic("a").partition(0)
    batch = pa.record_batch({"id": pa.array([1], pa.int64())})
    partition.append(batch, owner_id=5, sequence=1, follows=0)
    with pytest.raises(SequenceError, match="up to sequence 1, and sequence 3 was to follow on 2"):
        partition.append(batch, owner_id=5, sequence=3, follows=2)
    again = partition.append(batch, owner_id=5, sequence=1, follows=0)
    assert again[:2] == (1, 1)
    assert partition.last_sequence(5) == 1
    assert partition.last_sequence(6) == 0


def test_the_first_numbered_append_is_known_though_it_starts_a_segment() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, config={"segment.bytes": 1_000})
    log.producer("a").append(rows(0))
    named = log.producer("a", name="p")
    named.append(rows(*range(1, 20)), sequence=1)  # the roll just before it saw no named one
    log.producer("a").append(rows(*range(20, 40)))
    log.producer("a").append(rows(*range(40, 60)))
    again = another(log).producer("a", name="p")
    assert again.sequence == 1
    again.append(rows(*range(1, 20)), sequence=1)
    again.flush()
    assert all_ids(log) == list(range(60))


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_what_a_cleaner_takes_away_is_written_down_first(policy: str) -> None:
    log = memory_log()
    config = {"segment.bytes": 1_000, "cleanup.policy": policy, "retention.bytes": 0}
    log.create_topic("a", SCHEMA, key=["id"], config=config)
    named = log.producer("a", name="p")
    named.append(rows(1), sequence=1)
    error = OSError(28, "No space left on device")
    for _ in range(3):  # the file of the roll, and statistics
        memory(log).fail("write_file", error)
    log.producer("a").append(rows(*range(2, 30)))
    log.topic("a").partition(0).sync()
    (cleaned,) = log.clean()
    assert cleaned.segments_removed or cleaned.compacted.segments_after
    again = another(log).producer("a", name="p")
    assert again.sequence == 1
    again.append(rows(1), sequence=1)
    again.flush()
    assert all_ids(log).count(1) == (policy == "compact")
