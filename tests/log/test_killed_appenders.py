"""Appenders are killed at any instruction: they block nobody, and every row is there once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millstream.errors import LockTimeoutError
from millstream.log import Log
from millstream.storage_local import LocalStorage
from tests.log.log_kit import SCHEMA, ids_of, put

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import sys
from millstream.log import Log
from tests.log.log_kit import rows
log = Log(sys.argv[1])
producer = log.producer("a", name="p")
number = producer.sequence or 1  # the last one may be there in part
while True:
    producer.append(rows(2 * number, 2 * number + 1), sequence=number)
    if number % 3 == 0:
        producer.flush()
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    number += 1
"""


def test_a_named_producer_that_is_killed_again_and_again_leaves_no_gap(tmp_path: Path) -> None:
    chance = random.Random(7)
    log = Log(tmp_path)
    log.create_topic("a", SCHEMA, partitions=2, key=["id"], config={"segment.bytes": 30_000})
    flushed = 0
    for life in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 12)):
            flushed = int(process.stdout.readline())
        for _ in range(chance.randrange(0, 20_000)):
            pass  # to be anywhere in its loop
        process.kill()
        flushed = max([flushed, *(int(each) for each in process.communicate()[0].split())])
        start = time.monotonic()
        put(log, "a", [-1 - life])  # at once: nobody waits for a dead one
        assert time.monotonic() - start < 5
    for index in range(2):
        log.topic("a").partition(index).sync()
    found = sorted(each for each in ids_of(log.topic("a").to_arrow()) if each >= 0)
    assert found == list(range(2, 2 + len(found)))
    assert found[-1] >= 2 * flushed + 1


def test_a_stopped_appender_is_named_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    path = str(tmp_path / "append.lock")
    program = (
        "import sys, time; from millstream.storage_local import LocalStorage\n"
        f"with LocalStorage().lock({path!r}):\n"
        "    sys.stdout.write('held\\n'); sys.stdout.flush(); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        storage = LocalStorage()
        with (
            pytest.raises(LockTimeoutError, match=f"process {holder.pid} holds it.*stopped"),
            storage.lock(path, timeout_us=50_000),
        ):
            pass
        holder.kill()
        with storage.lock(path, timeout_us=5_000_000):
            pass
