"""Every flipped bit that could cost a row is found, and what is whole behind it."""

from __future__ import annotations

import random

import pytest

from millstream.log import Log
from millstream.log.check.verify import Finding, Verdict, verify
from tests.log.log_kit import SCHEMA, another, log_on, memory, memory_log, put, read

PATH = "/log/topics/00000001/0/0"
FIRST = f"{PATH}/{0:020d}.arrows"
STEP = 10
ROWS = 120


def filled(segment_bytes: int = 2_048) -> Log:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=2, config={"segment.bytes": segment_bytes})
    for start in range(0, ROWS, STEP):
        put(log, "a", range(start, start + STEP), partition=0)
    return log


def verdict(log: Log) -> Verdict:
    first, second = verify(another(log), "a")
    assert (second.topic, second.partition, second.findings) == ("a", 1, [])
    return first


def damage(log: Log, path: str, position: int, mask: int = 1) -> None:
    content = bytearray(memory(log).read_file(path))
    content[position] ^= mask
    memory(log).write_file(path, content)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    log = filled()
    writer = log.transactions.writer("owner")
    log.transactions.decide(writer, 1, "commit")
    found = list(verify(log))
    assert [(each.topic, each.partition) for each in found] == [
        ("a", 0), ("a", 1), ("control", 0),
    ]  # fmt: skip
    assert all(each.findings == [] for each in found)
    assert found[0].rows == ROWS
    assert found[0].segments > 3
    assert found[0].bytes == sum(size for _, size in log.topic("a").partition(0).segments())


def test_any_flipped_bit_of_a_segment_is_found_and_the_rest_is_counted() -> None:
    log = filled(segment_bytes=1_000_000)
    clean = memory(log).read_file(FIRST)
    chooser = random.Random(2)
    for position in range(0, len(clean), 41):
        damage(log, FIRST, position, 1 << chooser.randrange(8))
        found = verdict(log)
        assert found.is_damaged, position
        (finding,) = found.findings
        assert finding.path == FIRST
        if finding.position:  # else it is the head, without which nothing is known
            assert finding.until == finding.offset + STEP or finding.offset == ROWS - STEP
            assert finding.offset % STEP == 0
            assert found.rows == ROWS - STEP
        memory(log).write_file(FIRST, clean)
    assert verdict(log).findings == []


def test_two_holes_and_a_missing_segment_are_told_apart() -> None:
    log = filled()
    bases = [base for base, _ in log.topic("a").partition(0).segments()]
    size = memory(log).file_size(FIRST)
    damage(log, FIRST, size - 1)
    memory(log).remove(f"{PATH}/{bases[2]:020d}.arrows")
    found = verdict(log)
    first, second = found.findings
    assert (first.kind, first.path, first.offset, first.until) == (
        "rows", FIRST, bases[1] - STEP, bases[1],
    )  # fmt: skip
    assert (second.kind, second.offset, second.until) == ("rows", bases[2], bases[3])
    assert "a segment is missing" in second.reason
    assert found.rows == ROWS - STEP - (bases[3] - bases[2])


def test_a_damaged_index_costs_no_rows() -> None:
    log = filled()
    index = FIRST.replace(".arrows", ".index")
    damage(log, index, 12)
    found = verdict(log)
    assert not found.is_damaged
    (finding,) = found.findings
    assert (finding.kind, finding.path) == ("index", index)
    # One that holds and is not of this segment.
    other = f"{PATH}/{log.topic('a').partition(0).segments()[1][0]:020d}.index"
    memory(log).write_file(index, memory(log).read_file(other))
    (finding,) = verdict(log).findings
    assert (finding.kind, finding.reason) == ("index", "it does not fit its segment")
    memory(log).remove(index)
    assert verdict(log).findings == []
    assert read(another(log).topic("a")) == list(range(ROWS))


@pytest.mark.parametrize("cut", [1, 64, 200])
def test_a_torn_tail_is_no_damage_but_a_lost_durable_row_is(cut: int) -> None:
    log = filled(segment_bytes=1_000_000)
    disk = memory(log).disk
    whole = memory(log).read_file(FIRST)
    control = memory(log).read_file(f"{PATH}/control")
    disk.power_cut()
    log = log_on(disk.storage("after"))
    # Mostly the control file outlives a power cut, and says what was durable before.
    memory(log).write_file(f"{PATH}/control", control)
    # Half a frame behind what was durable, as of a process that died in an append.
    memory(log).write_file(FIRST, whole + whole[-832:-cut])
    (finding,) = verdict(log).findings
    assert (finding.kind, finding.offset, finding.position) == ("tail", ROWS, len(whole))
    memory(log).write_file(FIRST, whole[:-cut])
    found = verdict(log)
    assert found.is_damaged
    assert isinstance(found.findings[0], Finding)
    assert (found.findings[0].offset, found.rows) == (ROWS - STEP, ROWS - STEP)


def test_a_damaged_control_topic_is_found() -> None:
    log = filled()
    log.transactions.writer("owner")
    name = next(each for each in memory(log).list_directory("/log/control") if "arrows" in each)
    damage(log, f"/log/control/{name}", memory(log).file_size(f"/log/control/{name}") - 70)
    *_, control = verify(another(log))
    assert (control.topic, control.is_damaged) == ("control", True)
