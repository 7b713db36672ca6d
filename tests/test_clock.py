from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import reality
from millstream.clock import Clock, ManualClock, SystemClock


class TestSystemClock:
    def test_it_is_the_machines(self) -> None:
        before = time.time_ns() // 1_000
        now = SystemClock().now_us()
        assert before <= now <= time.time_ns() // 1_000

    def test_it_moves_on_while_somebody_sleeps(self) -> None:
        clock = SystemClock()
        start = clock.monotonic_us()
        clock.sleep_us(1_500)
        assert clock.monotonic_us() - start >= 1_500

    def test_it_cannot_be_made_in_a_simulated_run(self) -> None:
        with reality.simulation(), pytest.raises(AssertionError, match="SystemClock"):
            SystemClock()


class TestManualClock:
    def test_it_stands_still_until_it_is_moved(self) -> None:
        clock = ManualClock(start_us=5)
        assert (clock.now_us(), clock.monotonic_us()) == (5, 0)
        clock.sleep_us(10)
        assert (clock.now_us(), clock.monotonic_us()) == (15, 10)

    def test_a_correction_moves_the_wall_clock_alone(self) -> None:
        clock = ManualClock(start_us=100)
        clock.sleep_us(50)
        clock.jump_us(-120)
        assert (clock.now_us(), clock.monotonic_us()) == (30, 50)

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**12))))
    def test_monotonic_time_is_the_sum_of_all_sleeps(self, calls: list[tuple[bool, int]]) -> None:
        clock = ManualClock(0)
        slept = jumped = 0
        for is_sleep, duration_us in calls:
            if is_sleep:
                clock.sleep_us(duration_us)
                slept += duration_us
            else:
                clock.jump_us(-duration_us)
                jumped -= duration_us
        assert (clock.monotonic_us(), clock.now_us()) == (slept, slept + jumped)

    def test_it_may_be_made_in_a_simulated_run(self) -> None:
        with reality.simulation():
            clock: Clock = ManualClock()
        assert clock.monotonic_us() == 0


class TestAlarms:
    def test_a_manual_one_rings_when_its_time_is_passed(self) -> None:
        clock = ManualClock()
        rung: list[int] = []
        alarm = clock.alarm(lambda: rung.append(clock.monotonic_us()))
        clock.sleep_us(10)
        alarm.set(100)
        alarm.set(300)  # it rings before
        clock.sleep_us(99)
        assert rung == []
        clock.sleep_us(500)
        assert rung == [110]
        assert clock.monotonic_us() == 609
        alarm.set(5)
        alarm.close()
        clock.sleep_us(10)
        assert rung == [110]

    def test_a_real_one_rings_in_a_thread_of_its_own(self) -> None:
        rung = threading.Event()
        alarm = SystemClock().alarm(rung.set)
        alarm.set(60_000_000)
        alarm.set(1_000)  # earlier counts
        assert rung.wait(30)
        rung.clear()
        alarm.set(1_000)
        assert rung.wait(30)
        alarm.close()
