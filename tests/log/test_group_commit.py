"""Who waits for a sync is woken by it, or by who does the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millstream.log import Log
from millstream.log.group_commit import GroupCommit
from millstream.storage_local import futex, locks
from millstream.storage_local.files import LocalAppendFile
from tests.log.log_kit import SCHEMA, rows

FOR_EVER_S = 600.0


class Stage:
    """Threads that append and flush, each with a log of its own, and are told to sync by hand."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self.at_begin, self.may_begin = threading.Semaphore(0), threading.Semaphore(0)
        self.at_sync, self.may_sync = threading.Semaphore(0), threading.Semaphore(0)
        self.asleep, self.flushed = threading.Semaphore(0), threading.Semaphore(0)
        self.syncs = 0
        self._threads: list[threading.Thread] = []
        self._held(monkeypatch, GroupCommit, "refuse_after_failure", self.at_begin, self.may_begin)
        self._held(monkeypatch, LocalAppendFile, "sync", self.at_sync, self.may_sync)
        wait = futex.wait

        def noted(*arguments: object) -> object:
            self.asleep.release()
            return wait(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(futex, "wait", noted)

    def _held(
        self,
        monkeypatch: pytest.MonkeyPatch,
        kind: type,
        name: str,
        at: threading.Semaphore,
        may: threading.Semaphore,
    ) -> None:
        call: Callable[..., object] = getattr(kind, name)

        def held(*arguments: object) -> object:
            if threading.current_thread() in self._threads:
                at.release()
                assert may.acquire(timeout=30)
                self.syncs += name == "sync"
            return call(*arguments)

        monkeypatch.setattr(kind, name, held)

    def flush(self, number: int) -> None:
        """Append a row and flush, in a thread of its own."""

        def run() -> None:
            producer = Log(self._path).producer("a")
            producer.append(rows(number))
            producer.flush()
            self.flushed.release()

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def until_asleep(self) -> None:
        assert self.asleep.acquire(timeout=30)
        time.sleep(0.02)  # it is about to be

    def let(self, count: int) -> None:
        """Let so many syncs go on."""
        for _ in range(count):
            self.may_begin.release()
            self.may_sync.release()

    def are_done(self) -> bool:
        """Whether all have flushed, before they give up waiting for the lock."""
        return all(self.flushed.acquire(timeout=8) for _ in self._threads)


def test_who_came_before_the_holder_looked_is_not_asked_to_do_the_next_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be woken as the next one, need no sync any more, and let the others sleep."""
    monkeypatch.setattr(locks, "LOOK_AGAIN_S", FOR_EVER_S)
    monkeypatch.setattr(locks, "LOOK_AGAIN_MAX_S", FOR_EVER_S)
    log = Log(tmp_path)
    log.create_topic("a", SCHEMA)
    stage = Stage(tmp_path, monkeypatch)
    stage.flush(0)
    assert stage.at_begin.acquire(timeout=30)
    # It holds the lock, and will read how far the rows are written.
    stage.flush(1)
    stage.until_asleep()
    stage.may_begin.release()
    assert stage.at_sync.acquire(timeout=30)
    for number in (2, 3):
        stage.flush(number)
        stage.until_asleep()
    stage.let(4)
    assert stage.are_done(), "a row's producer sleeps though nobody syncs"
    assert log.topic("a").partition(0).durable_end == 4
    assert stage.syncs <= 3
