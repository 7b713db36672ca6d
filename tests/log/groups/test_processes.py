"""Members in real processes: killed, stopped and woken; every row is copied exactly once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from tests.log.groups.group_kit import SCHEMA

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PARTITIONS = 4


class MemberProcess:
    def __init__(self, path: Path, owner: str, timeout_ms: int, member: str | None) -> None:
        arguments = [str(path), owner, str(timeout_ms), *([member] if member else [])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.log.groups.member_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the process ended"
        return line

    def owns(self, count: int) -> list[int]:
        """Wait until it has so many partitions, and return which."""
        while True:
            line = self.hear()
            if line.startswith("owns"):
                owned = [int(each) for each in line.removeprefix("owns").split(",") if each]
                if len(owned) == count:
                    return owned

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        while self.hear() != "closed":
            pass


@contextmanager
def starting(path: Path) -> Iterator[Callable[..., MemberProcess]]:
    with ExitStack() as running:

        def start(owner: str, timeout_ms: int = 45_000, member: str | None = None) -> MemberProcess:
            started = MemberProcess(path, owner, timeout_ms, member)
            running.callback(end, started.process)
            return started

        yield start


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


class Rows:
    """Rows that are appended by and by, and what became of them."""

    def __init__(self, path: Path) -> None:
        self.log = Log(path)
        self.log.create_topic("x", SCHEMA, partitions=PARTITIONS)
        self.log.create_topic("out", SCHEMA)
        self.count = 0

    def append(self, count: int) -> None:
        with self.log.producer("x") as producer:
            for _ in range(count):
                batch = pa.table({"id": [self.count]})
                producer.append(batch, partition=self.count % PARTITIONS)
                self.count += 1

    def wait_until_copied(self) -> None:
        deadline = time.monotonic() + 30
        while sum(self.log.topic("out").stable_ends()) < self.count:
            assert time.monotonic() < deadline, self.copied()
            time.sleep(0.01)
        assert self.copied() == list(range(self.count))

    def copied(self) -> list[int]:
        return sorted(self.log.topic("out").to_arrow().column("id").to_pylist())


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_one_that_is_killed_is_replaced_at_once(rows: Rows, tmp_path: Path) -> None:
    with starting(tmp_path) as start:
        a, b = start("a"), start("b")
        for each in (a, b):
            each.owns(PARTITIONS // 2)
        rows.append(16)
        a.process.kill()
        killed = time.monotonic()
        b.owns(PARTITIONS)
        # By its lock, not by its silence: that would take 45 s.
        assert time.monotonic() - killed < 10
        rows.append(8)
        if rows.log.transactions.prepared():  # it died between the two records of a commit
            rows.log.transactions.writer("a")
        rows.wait_until_copied()
        b.close()
        assert sum(rows.log.group("g").lag().values()) == 0


def test_one_that_was_stopped_is_fenced_when_it_wakes(rows: Rows, tmp_path: Path) -> None:
    with starting(tmp_path) as start:
        a, b = start("a", timeout_ms=500), start("b", timeout_ms=2_000)
        for each in (a, b):
            each.owns(PARTITIONS // 2)
        rows.append(8)
        rows.wait_until_copied()
        a.process.send_signal(signal.SIGSTOP)
        rows.append(8)
        b.owns(PARTITIONS)
        rows.wait_until_copied()
        a.process.send_signal(signal.SIGCONT)
        for each in (a, b):
            each.owns(PARTITIONS // 2)
        rows.append(8)
        rows.wait_until_copied()


def test_a_static_member_that_is_restarted_has_its_partitions_again(
    rows: Rows, tmp_path: Path
) -> None:
    with starting(tmp_path) as start:
        a, b = start("a", member="one"), start("b", member="two")
        owned = [each.owns(PARTITIONS // 2) for each in (a, b)]
        generation = rows.log.group("g").describe()["generation"]
        a.process.kill()
        rows.append(8)
        again = start("a", member="one")
        assert again.owns(PARTITIONS // 2) == owned[0]
        rows.wait_until_copied()
        assert rows.log.group("g").describe()["generation"] == generation
