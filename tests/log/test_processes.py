"""Real processes append to one partition at once; some are killed while they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from millstream.errors import LockTimeoutError
from millstream.log.partition import Partition
from millstream.storage_local import LocalStorage
from tests.log import append_process
from tests.log.partition_kit import open_partition, read_all

ROOT = Path(__file__).resolve().parent.parent.parent


class Process:
    def __init__(self, folder: Path, owner: int, mode: str, count: int) -> None:
        self.owner = owner
        command = [sys.executable, "-m", "tests.log.append_process"]
        self.process = subprocess.Popen(
            [*command, str(folder), str(owner), mode, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.acked = -1

    def say_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def read_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if line.startswith("acked"):
            self.acked = int(line.split()[1])
        return line

    def finish(self) -> int:
        while self.read_line():
            pass
        return self.process.wait(timeout=60)


@contextmanager
def running(folder: Path, modes: list[tuple[str, int]]) -> Iterator[list[Process]]:
    processes = [Process(folder, owner, *mode) for owner, mode in enumerate(modes)]
    try:
        for each in processes:
            assert each.read_line() == "ready"
        for each in processes:
            each.say_go()
        yield processes
    finally:
        for each in processes:
            each.process.kill()
            each.process.communicate()


def check(folder: Path, processes: list[Process]) -> Partition:
    """Every acknowledged frame is there once, whole, in order; and the partition works on."""
    partition = open_partition(folder, append_process.SCHEMA, segment_bytes=200_000)
    partition.append(append_process.frame(99, 0), owner_id=99)
    partition.sync()
    sequences: dict[int, int] = {}
    cursor = partition.frames(0)
    end = 0
    while (frame := cursor.next()) is not None:
        header = frame.header
        assert header.base_offset == end
        end = header.end_offset
        assert header.sequence == sequences.get(header.owner_id, -1) + 1
        sequences[header.owner_id] = header.sequence
        assert frame.batch().equals(append_process.frame(header.owner_id, header.sequence))
    for each in processes:
        assert sequences.get(each.owner, -1) >= each.acked
    return partition


def test_processes_append_to_one_partition(tmp_path: Path) -> None:
    with running(tmp_path / "0", [("finish", 60)] * 3) as processes:
        assert [each.finish() for each in processes] == [0, 0, 0]
    partition = check(tmp_path / "0", processes)
    assert [each.acked for each in processes] == [59, 59, 59]
    assert len(partition.segments()) > 3
    table = read_all(partition)
    owners = (
        table.filter(pc.less(table["owner"], 3)).group_by("owner").aggregate([([], "count_all")])
    )
    rows = sum(1 + sequence % 50 for sequence in range(60))
    assert sorted(owners.to_pylist(), key=lambda row: row["owner"]) == [
        {"owner": owner, "count_all": rows} for owner in range(3)
    ]


def test_processes_that_die_inside_an_append_harm_nobody(tmp_path: Path) -> None:
    modes = [("finish", 80), ("half", 20), ("unpublished", 30)]
    with running(tmp_path / "0", modes) as processes:
        assert [each.finish() for each in processes] == [0, -9, -9]
    check(tmp_path / "0", processes)
    assert [each.acked for each in processes] == [79, 15, 27]


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    for acks in (1, 3):
        folder = tmp_path / str(acks)
        with running(folder, [("finish", 10_000), ("finish", 40)]) as processes:
            for _ in range(acks):
                processes[0].read_line()
            processes[0].process.kill()
            processes[0].finish()
            assert processes[1].finish() == 0
        assert processes[0].acked >= 0
        check(folder, processes)


def test_a_plain_reader_reads_what_many_wrote(tmp_path: Path) -> None:
    with running(tmp_path / "0", [("finish", 20)] * 2) as processes:
        assert [each.finish() for each in processes] == [0, 0]
    paths = sorted((tmp_path / "0").glob("*.arrows"))
    tables = [pa.ipc.open_stream(path.read_bytes()).read_all() for path in paths]
    partition = open_partition(tmp_path / "0", append_process.SCHEMA)
    assert pa.concat_tables(tables).equals(read_all(partition))


class Impatient(LocalStorage):
    """A disk whose locks are waited for only shortly."""

    def lock(
        self,
        path: str,
        timeout_us: int = 100_000,
        unless: Callable[[], bool] | None = None,
        is_served: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[bool]:
        return super().lock(path, min(timeout_us, 100_000), unless, is_served)


def test_a_process_that_is_stopped_inside_an_append_holds_others_up_and_harms_nobody(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "0"
    with running(folder, [("stopped", 9)]) as processes:
        stopped = processes[0]
        assert [stopped.read_line(), stopped.read_line()] == ["acked 3", "acked 7"]
        pid = stopped.process.pid
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)  # it has written half of its ninth frame
        waiting = open_partition(
            folder, append_process.SCHEMA, storage=Impatient(), segment_bytes=200_000
        )
        said = f"append.lock was not free within 0.1 s; process {pid} holds it.*stopped"
        with pytest.raises(LockTimeoutError, match=said):
            waiting.append(append_process.frame(1, 0), owner_id=1)
        waiting.sync()
        whole = sum(append_process.frame(0, each).num_rows for each in range(8))
        assert read_all(waiting).num_rows == whole  # of what is half, and refused, there is nothing
        os.kill(pid, signal.SIGCONT)
        assert stopped.finish() == 0
        waiting.append(append_process.frame(1, 0), owner_id=1)
    assert stopped.acked == 8
    partition = check(folder, processes)
    own = append_process.frame(1, 0).num_rows + append_process.frame(99, 0).num_rows
    assert read_all(partition).num_rows == whole + append_process.frame(0, 8).num_rows + own


def test_a_stopped_holder_of_the_lock_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "append.lock")
    program = (
        "import sys; from millstream.storage_local import LocalStorage\n"
        f"with LocalStorage().lock({path!r}):\n"
        "    sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LockTimeoutError, match=f"process {holder.pid} holds it"),
            LocalStorage().lock(path, timeout_us=1_000),
        ):
            pass
        holder.kill()
        holder.wait()
        with LocalStorage().lock(path, timeout_us=5_000_000):
            pass  # the kernel freed it
