"""One job in several runs: bounded, stopped, unbounded, drained, at other parallelisms, fresh."""

from __future__ import annotations

import pytest

import millstream as ms
from millstream.errors import CheckpointError
from millstream.log import Log
from tests.runtime.kit import Bench, Played, event_log, events, put, rows_of, run


def windows(log: Log, size: str = "10s", lateness: str = "0s") -> list[ms.Sink]:
    counted = (
        ms.stream("events", lateness=lateness, log=log)
        .key_by("key")
        .window(ms.tumbling(size))
        .agg(n=ms.count())
    )
    return [counted.to("windows"), counted.late().to("late")]


def results(log: Log) -> list[tuple[float, int]]:
    return rows_of(log, "windows", "window_start", "n")


def late(log: Log) -> list[float]:
    return sorted(row[0] for row in rows_of(log, "late", "time"))


@pytest.mark.parametrize("parallelisms", [(1, 1), (1, 4), (4, 2), (2, 1)])
def test_a_second_bounded_run_reads_what_came_and_reopens_no_window(
    parallelisms: tuple[int, int],
) -> None:
    bench = Bench()
    log = event_log(bench, partitions=2)
    put(log, "events", events(1, 2, 11), 0)
    sinks = windows(log, lateness="1m")
    assert run(bench, sinks, parallelism=parallelisms[0]).coordinator.finished
    assert results(log) == [(0, 2), (10, 1)]
    put(log, "events", events(12, 5, 25), 0)
    put(log, "events", events(3, 26), 1)
    run(bench, sinks, parallelism=parallelisms[1])
    assert results(log) == [(0, 2), (10, 1), (20, 2)]
    assert late(log) == [3, 5, 12]


def test_a_run_that_was_stopped_keeps_its_ends_until_it_is_finished() -> None:
    bench = Bench()
    log = event_log(bench)
    put(log, "events", events(1, 2, 11))
    sinks = windows(log)
    first = Played(bench, sinks, batch_rows=1)
    first.step()
    first.coordinator.request_stop()
    first.tick()
    first.finish()
    assert not first.coordinator.finished
    assert results(log) == []
    put(log, "events", events(12, 13))
    second = run(bench, sinks)
    assert second.coordinator.restored is not None
    assert results(log) == [(0, 2), (10, 1)]
    run(bench, sinks)
    assert (results(log), late(log)) == ([(0, 2), (10, 1)], [12, 13])


def test_a_stop_that_comes_while_the_end_is_given_out_changes_nothing() -> None:
    bench = Bench()
    log = event_log(bench)
    put(log, "events", events(1))
    sinks = windows(log)
    first = Played(bench, sinks)
    first.settle()
    first.tick()
    first.coordinator.request_stop()
    first.finish()
    assert first.coordinator.finished
    put(log, "events", events(21))
    run(bench, sinks)
    assert results(log) == [(0, 1), (20, 1)]


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_rows_for_a_partition_that_had_come_to_its_end_reopen_no_window(parallelism: int) -> None:
    # Bounded, stopped, and run on without bounds: partition 0 no longer held back the windows.
    bench = Bench()
    log = event_log(bench, partitions=2)
    put(log, "events", events(1), 0)
    put(log, "events", events(2, 50, 60), 1)
    sinks = windows(log)
    first = Played(bench, sinks, parallelism=parallelism)
    first.settle()
    first.coordinator.request_stop()
    first.finish()
    assert results(log) == [(0, 2), (50, 1)]
    put(log, "events", events(3, 70), 0)
    second = Played(bench, sinks, parallelism=parallelism, until=None)
    second.settle()
    second.coordinator.request_drain()
    second.finish()
    assert results(log) == [(0, 2), (50, 1), (60, 1), (70, 1)]
    assert late(log) == [3]


def test_a_bounded_run_follows_an_unbounded_one_and_the_other_way_round() -> None:
    bench = Bench()
    log = event_log(bench)
    sinks = windows(log)
    expected = []
    for number in range(6):
        put(log, "events", events(100 * number, 100 * number + 10))
        expected += [(100.0 * number, 1), (100.0 * number + 10, 1)]
        if number % 2:
            run(bench, sinks)
        else:
            running = Played(bench, sinks, until=None)
            running.settle()
            running.checkpoint()
            running.coordinator.request_stop()
            running.finish()
    assert results(log) == expected
    assert late(log) == []


@pytest.mark.parametrize("parallelisms", [(1, 4, 2), (4, 1, 3), (2, 3, 1)])
def test_open_windows_move_with_their_keys_to_another_parallelism(
    parallelisms: tuple[int, ...],
) -> None:
    bench = Bench()
    log = event_log(bench, partitions=3)
    sinks = windows(log, size="1h")
    for parallelism in parallelisms:
        for partition, key in enumerate("abcdefghi"):
            put(log, "events", events(1, 2, key=key), partition % 3)
        running = Played(bench, sinks, parallelism=parallelism, until=None)
        running.settle()
        running.coordinator.request_stop()
        running.finish()
        assert results(log) == []
    run(bench, sinks, parallelism=2)
    assert rows_of(log, "windows", "key", "n") == [(key, 6) for key in "abcdefghi"]


def test_more_workers_than_partitions() -> None:
    bench = Bench()
    log = event_log(bench)
    for number in range(12):
        put(log, "events", events(number, key="abcdef"[number % 6]))
    run(bench, windows(log, lateness="1m"), parallelism=16, batch_rows=1)
    assert sum(n for _, n in results(log)) == 12
    assert late(log) == []


@pytest.mark.parametrize("until", ["end", None])
def test_rows_of_a_topic_that_promises_nothing_across_power_cuts_are_missed_by_name(
    until: str | None,
) -> None:
    # Where a power cut takes back rows that a checkpoint has counted, the run says so.
    told = 0
    for seed in range(20):
        bench = Bench(seed)
        log = event_log(bench, durability="os")
        put(log, "events", events(1))
        log.topic("events").partition(0).verify()
        put(log, "events", events(2, 3))
        sinks = [ms.stream("events", log=log).to("copy")]
        running = Played(bench, sinks, until=until)
        running.settle()
        running.checkpoint()
        bench.disk.power_cut()
        after = bench.log()
        kept = after.topic("events").durable_ends()[0]
        sinks = [ms.stream("events", log=after).to("copy")]
        if kept == 3:
            run(bench, sinks)
            continue
        with pytest.raises(CheckpointError, match=f"offset 3, and now it ends at {kept}; a power"):
            Played(bench, sinks, until=until)
        told += 1
    assert 0 < told < 20


def test_a_run_that_came_to_its_end_is_not_run_again_by_a_host_that_did_not_hear_of_it() -> None:
    bench = Bench()
    log = event_log(bench)
    put(log, "events", events(1))
    sinks = windows(log)
    run(bench, sinks, run="mine")
    put(log, "events", events(21))
    again = Played(bench, sinks, run="mine")
    assert (again.workers, again.coordinator.finished) == ([], True)
    again.finish()
    assert results(log) == [(0, 1)]
    run(bench, sinks, run="another")
    assert results(log) == [(0, 1), (20, 1)]


class TestFresh:
    def test_it_starts_over_and_leaves_nothing_of_the_old_state(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        sinks = windows(log)
        running = Played(bench, sinks, until=None)
        running.settle()
        running.checkpoint()
        running.coordinator.close()
        again = run(bench, sinks, fresh=True)
        assert again.coordinator.restored is None
        assert results(log) == [(0, 2)]
        run(bench, sinks, fresh=True)
        assert results(log) == [(0, 2), (0, 2)]

    def test_one_that_dies_at_its_start_leaves_the_old_checkpoint_whole(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        sinks = windows(log)
        running = Played(bench, sinks, until=None)
        running.settle()
        running.checkpoint()
        running.coordinator.close()
        for effect in range(1, 40):
            if not bench.dies_in("coordinator", effect, lambda: Played(bench, sinks, fresh=True)):
                break
            newest = Played(bench, sinks, until=None)
            newest.settle()
            newest.coordinator.close()
        else:
            pytest.fail("the start has more effects than were tried")
        assert effect > 5
