"""Nobody sleeps through a ring, whoever else listens to the same bell."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from millstream.clock import ManualClock, SystemClock
from millstream.log import bells
from millstream.log.bells import Bells
from millstream.storage import Storage
from millstream.storage_local import LocalStorage
from millstream.storage_memory import MemoryDisk


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    if request.param == "memory":
        storage = MemoryDisk(random.Random(1)).storage("a")
        storage.make_directory("/log")
        return storage, "/log"
    return LocalStorage(), str(tmp_path)


class TestRings:
    def test_a_ring_before_the_wait_ends_it(self, storage: tuple[Storage, str]) -> None:
        clock = ManualClock()
        one = Bells(storage[1], storage[0], clock)
        rung = one.listen([3, 4, 3])
        one.ring(4)
        one.wait(rung, 600_000_000)
        assert clock.monotonic_us() == 0

    def test_another_who_listens_later_takes_no_ring_away(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bells, "LOOK_AGAIN_US", 600_000_000)
        clock = SystemClock()
        one, other = (Bells(str(tmp_path), LocalStorage(), clock) for _ in range(2))
        first = one.listen([3])
        other.ring(3)
        second = other.listen([3])  # it has seen all there was; the first has not
        start = time.monotonic()
        one.wait(first, 60_000_000)
        assert time.monotonic() - start < 30
        one.ring(3)
        other.wait(second, 60_000_000)
        assert time.monotonic() - start < 30

    def test_who_listens_to_very_many_hears_each(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bells, "LOOK_AGAIN_US", 600_000_000)
        one, other = (Bells(str(tmp_path), LocalStorage(), SystemClock()) for _ in range(2))
        for bell in (0, 1, 254):
            rung = one.listen(range(255))
            assert not one.wait(rung, 1_000)
            other.ring(bell)
            start = time.monotonic()
            assert one.wait(rung, 60_000_000)
            assert time.monotonic() - start < 30
            assert one.heard(rung) == [bell]

    def test_of_more_bells_than_the_kernel_waits_for_others_wake_nobody(
        self, storage: tuple[Storage, str]
    ) -> None:
        clock = ManualClock()
        one = Bells(storage[1], storage[0], clock)
        rung = one.listen(range(1, 200))
        one.ring(220)
        assert not one.wait(rung, 2_000)
        one.ring(7)
        assert one.wait(rung, 2_000)

    def test_nobody_pays_for_rings_that_nobody_hears(self, storage: tuple[Storage, str]) -> None:
        one = Bells(storage[1], storage[0], ManualClock())
        rung = one.listen([5])
        one.ring(5)
        (_, count), (_, after) = rung[0], one.listen([5])[0]
        assert after == count + 1
        one.ring(6)
        one.ring(5)
        one.ring(5)
        assert one.listen([5])[0][1] == after + 1, "counted only while somebody listens"


@pytest.mark.parametrize("bell_count", [1, 3, 200])
def test_no_ring_is_slept_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bell_count: int
) -> None:
    """Several listeners and several who ring, on the same bells: each sees all that happened."""
    monkeypatch.setattr(bells, "LOOK_AGAIN_US", 600_000_000)  # one lost ring, and it waits so long
    published = [0] * 4
    seen = [[0] * 4 for _ in range(3)]
    rounds = 60
    clock = SystemClock()

    def ring(number: int) -> None:
        own = Bells(str(tmp_path), LocalStorage(), clock)
        for index in range(1, rounds + 1):
            published[number] = index
            own.ring(1 + number % bell_count)
            time.sleep(0.0002 * (index % 3))

    def listen(number: int) -> None:
        own = Bells(str(tmp_path), LocalStorage(), clock)
        while True:
            rung = own.listen(range(1, 1 + bell_count))
            seen[number] = list(published)
            if seen[number] == [rounds] * 4:
                return
            own.wait(rung, 600_000_000)

    threads = [threading.Thread(target=listen, args=(each,), daemon=True) for each in range(3)]
    threads += [threading.Thread(target=ring, args=(each,), daemon=True) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), (published, seen)
