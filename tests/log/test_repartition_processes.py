"""Real processes append while their topic gets other partition counts; one of them is killed."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from millstream.log import Log
from tests.log.repartition_process import BATCH_ROWS, SCHEMA

ROOT = Path(__file__).resolve().parent.parent.parent
COUNT = 75
APART = 1_000_000


def test_nothing_is_lost_twice_or_out_of_order(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.create_topic("t", SCHEMA, partitions=3, key=["key"])
    producers = [
        subprocess.Popen(
            [
                sys.executable, "-m", "tests.log.repartition_process",
                str(tmp_path / "log"), f"{number * APART}", f"{COUNT}",
            ],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for number in range(3)
    ]  # fmt: skip
    worked: dict[int, list[int]] = defaultdict(list)
    seen: dict[int, list[int]] = defaultdict(list)
    consumer = log.consumer("t")
    acked = [-1, -1, -1]
    with log.consumer("t", group="g") as member:

        def follow(timeout_us: int = 0) -> int:
            count = 0
            for reader, found in ((consumer, seen), (member, worked)):
                while (batch := reader.poll(timeout_us)) is not None:
                    count += batch.num_rows
                    for row in batch.to_pylist():
                        found[row["key"]].append(row["id"])
            return count

        def read(number: int) -> bool:
            stdout = producers[number].stdout
            assert stdout is not None
            line = stdout.readline()
            if line:
                acked[number] = int(line.split()[1])
            return bool(line)

        for partitions in (5, 2, 8, 1, 3):
            for number in range(3):
                read(number)
            Log(tmp_path / "log").repartition("t", partitions)
            follow()
        producers[2].kill()
        while any([read(number) for number in range(3)]):
            follow()
        assert [each.wait(60) for each in producers[:2]] == [0, 0]
        producers[2].wait(60)
        while follow(300_000):
            pass
    # A member commits once a second, and when it leaves.
    assert sum(log.group("g").lag().values()) == 0
    for process in producers:
        assert process.stdout is not None
        process.stdout.close()
    assert acked[:2] == [number * APART + COUNT * BATCH_ROWS - 1 for number in range(2)]
    assert seen == worked
    ids = sorted(each for found in seen.values() for each in found)
    assert all(found == sorted(set(found)) for found in seen.values())
    for number, last in enumerate(acked):
        own = [each for each in ids if each // APART == number]
        assert own[: last - number * APART + 1] == list(range(number * APART, last + 1))
        assert len(own) == len(set(own))
    assert log.topic("t").config.generation == 5
