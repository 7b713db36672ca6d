"""Transactions whose process dies in any effect, is killed, or loses its power."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import pytest

from millstream.log import Log
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import SCHEMA, ids_of, log_on, memory, put, read, rows
from tests.log.processes import WriterProcess


def outcome(disk: MemoryDisk) -> tuple[list[int], list[int]]:
    log = log_on(disk.storage("after"))
    return read(log.topic("a")), read(log.topic("b"))


class TestDeaths:
    """The process dies in any effect of a transaction over two topics; then perhaps the power."""

    @staticmethod
    def world(seed: int) -> tuple[MemoryDisk, Log]:
        disk = MemoryDisk(random.Random(seed))
        log = log_on(disk.storage("a"))
        for name in "ab":
            log.create_topic(name, SCHEMA, config={"segment.bytes": 1_000})
            put(log, name, [0])
        with log.transaction("job") as transaction:
            transaction.append("a", rows(1))
        return disk, log

    @staticmethod
    def transact(log: Log) -> None:
        with log.transaction("job") as transaction:
            transaction.append("a", rows(2))
            transaction.append("b", rows(3))
            transaction.append("a", rows(4))

    @pytest.mark.parametrize("power", [False, True])
    def test_all_or_nothing(self, power: bool) -> None:
        _, counted = self.world(0)
        before = memory(counted).effects
        self.transact(counted)
        effects = memory(counted).effects - before
        assert effects > 40
        outcomes = []
        for fatal in range(1, effects + 1):
            disk, log = self.world(fatal)
            memory(log).crash_after(fatal)
            with pytest.raises(SimulatedCrash):
                self.transact(log)
            if power:
                disk.power_cut()
            before_next = outcome(disk)
            self.transact(log_on(disk.storage("next")))
            found = outcome(disk)
            assert found in [([0, 1, 2, 4], [0, 3]), ([0, 1, 2, 4, 2, 4], [0, 3, 3])]
            # What was seen stays. What was not may come: a decision that was written, not synced.
            seen_before = len(before_next[1]) - 1
            assert before_next == ([0, 1] + [2, 4] * seen_before, [0] + [3] * seen_before)
            assert len(found[1]) - 2 >= seen_before
            outcomes.append(len(found[1]) - 2)
        # Death before the decision's append leaves nothing, after it all.
        assert outcomes[0] == 0
        assert outcomes[-1] == 1

    @pytest.mark.parametrize("power", [False, True])
    @pytest.mark.parametrize("decision", ["commit", "abort"])
    def test_between_prepare_and_decide(
        self, power: bool, decision: Literal["commit", "abort"]
    ) -> None:
        disk, log = self.world(1)
        writer = log.transactions.writer("job")
        for topic in "ab":
            log.producer(topic, writer=writer).append(rows(5), transaction=3)
        log.transactions.prepare(writer, 3, [("a", 0), ("b", 0)])
        if power:
            disk.power_cut()
        memory(log).kill()
        assert outcome(disk) == ([0, 1], [0])
        survivor = log_on(disk.storage("operator"))
        (prepared,) = survivor.transactions.prepared()
        survivor.transactions.decide(prepared.writer, prepared.number, decision)
        memory(survivor).kill()  # between the decision and anything else
        if power:
            disk.power_cut()
        expected = ([0, 1, 5], [0, 5]) if decision == "commit" else ([0, 1], [0])
        assert outcome(disk) == expected

    def test_durability_os_holds_against_dead_processes(self) -> None:
        disk = MemoryDisk(random.Random(1))
        log = log_on(disk.storage("a"))
        for name in "ab":
            log.create_topic(name, SCHEMA, durability="os")
        with log.transaction("job") as transaction:
            transaction.append("a", rows(1))
            transaction.append("b", rows(2))
        memory(log).kill()
        assert outcome(disk) == ([1], [2])


class TestProcesses:
    def test_a_reader_in_another_process_sees_transactions_whole(self, tmp_path: Path) -> None:
        log = Log(tmp_path)
        for name in "ab":
            log.create_topic(name, SCHEMA, config={"segment.bytes": 5_000})
        readers = {name: log.topic(name).reader(0) for name in "ab"}
        found: dict[str, list[int]] = {"a": [], "b": []}

        def look(name: str) -> None:
            while (batch := readers[name].read()) is not None:
                found[name] += ids_of(batch)

        count = 30
        with WriterProcess(tmp_path, "transact", count) as process:
            process.go()
            turn = 0
            while process.running() or turn % 2:
                first, second = "ab" if turn % 2 else "ba"
                look(first)
                look(second)  # later: it shows at least what the first one did
                assert found[first] == found[second][: len(found[first])]
                turn += 1
            acked = process.acked()
        look("a")
        look("b")
        assert found["a"] == found["b"] == acked == [i for i in range(count) if i % 3 != 2]

    @pytest.mark.parametrize("least", [1, 4, 7])
    def test_one_that_is_killed_leaves_both_topics_alike(self, tmp_path: Path, least: int) -> None:
        log = Log(tmp_path)
        for name in "ab":
            log.create_topic(name, SCHEMA)
        with WriterProcess(tmp_path, "transact", 100_000) as process:
            process.go()
            process.wait_for(f"acked {least}")
            process.kill()
            acked = process.acked()
        with log.transaction("writer") as transaction:
            transaction.append("a", rows(-1))
            transaction.append("b", rows(-1))
        one, other = read(log.topic("a")), read(log.topic("b"))
        assert one == other
        assert one[: len(acked)] == acked
        assert len(one) - len(acked) in {1, 2}
        assert one[-1] == -1
