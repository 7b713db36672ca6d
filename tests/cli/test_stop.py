"""Ctrl-C and SIGTERM end a job that would run for ever in good order; the next run goes on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from millstream.log.fitting import FRAME_ROWS_MAX
from tests.cli.conftest import Command
from tests.cli.process_kit import Ended, ended, started, stop, wait_until

HOUR_US = 3_600_000_000
JOB = """\
import millstream as ms

clicks = ms.stream("clicks", lateness="2h")
hours = clicks.key_by("user").window(ms.tumbling("1h")).agg(n=ms.count(), total=ms.sum("n"))
if __name__ == "__main__":
    ms.run(hours.to("hours"), clicks.to("copy"), checkpoint_interval="{interval}")
"""
ROWS = 6_000


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "log")
    schema = pa.schema({"time": pa.timestamp("us", "UTC"), "user": pa.string(), "n": pa.int64()})
    log.create_topic("clicks", schema, partitions=2, key=("n",), time="time")
    return log


def append(log: Log, first: int, last: int) -> None:
    numbers = range(first, last)
    times = [number * HOUR_US // 100 for number in numbers]
    with log.producer("clicks") as producer:
        producer.append(
            pa.table(
                {
                    "time": pa.array(times, pa.timestamp("us", "UTC")),
                    "user": ["abc"[number % 3] for number in numbers],
                    "n": pa.array(numbers, pa.int64()),
                }
            )
        )


def script(log: Log, interval: str) -> Path:
    path = Path(log.path).parent / "count.py"
    path.write_text(JOB.format(interval=interval))
    return path


def copied(log: Log) -> int:
    return sum(log.topic("copy").stable_ends()) if "copy" in log.topic_names() else 0


def written(log: Log) -> list[int]:
    if "copy" not in log.topic_names():
        return []
    topic = log.topic("copy")
    return [topic.partition(index).written_end for index in range(topic.partitions)]


@pytest.mark.parametrize(("number", "parallelism"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_job_is_stopped_in_good_order_and_goes_on(
    log: Log, millstream: Command, number: signal.Signals, parallelism: int
) -> None:
    path, directory = script(log, "20ms"), Path(log.path)
    command = ("run", path, "--parallelism", parallelism)
    append(log, 0, ROWS // 2)
    with started(directory, *command) as first:
        wait_until(lambda: copied(log) == ROWS // 2, first)
        end = stop(first, number)
    assert (end.code, end.out) == (0, ""), end
    assert end.error.splitlines()[-1] == (
        "count: stopped after a last checkpoint; run it again and it goes on from there"
    )
    # Windows that were open stay open: their results are not given out before their time.
    assert 0 < log.topic("hours").to_arrow().num_rows < 3 * ROWS // 200
    for topic in ("hours", "copy"):
        assert log.topic(topic).stable_ends() == log.topic(topic).durable_ends()

    append(log, ROWS // 2, ROWS)
    end = Ended(*millstream(*command, "--until", "end"))
    assert end.code == 0, end
    assert sorted(log.topic("copy").to_arrow()["n"].to_pylist()) == list(range(ROWS))
    assert counted(log) == expected_hours(ROWS)


def test_a_stop_does_not_wait_for_the_next_checkpoint(log: Log, millstream: Command) -> None:
    path, directory = script(log, "1h"), Path(log.path)
    rows = 4 * FRAME_ROWS_MAX  # enough for a partition to be written to before a checkpoint
    append(log, 0, rows)
    with started(directory, "run", path) as process:
        wait_until(lambda: any(written(log)), process)
        assert copied(log) == 0
        before = sum(written(log))
        end = stop(process)
    assert (end.code, end.out) == (0, ""), end
    # What was written before the last checkpoint is committed; what a fast job wrote behind it,
    # while that one was being completed, is not.
    assert before <= log.topic("copy").to_arrow().num_rows <= sum(written(log))
    end = Ended(*millstream("run", path, "--until", "end"))
    assert end.code == 0, end
    assert sorted(log.topic("copy").to_arrow()["n"].to_pylist()) == list(range(rows))


def test_a_script_run_by_python_is_stopped_alike(log: Log) -> None:
    path, directory = script(log, "20ms"), Path(log.path)
    append(log, 0, 500)
    with started(directory, path, command=[sys.executable]) as process:
        wait_until(lambda: copied(log) == 500, process)
        end = stop(process, signal.SIGTERM)
    assert (end.code, end.out, end.error) == (0, "", "")


def test_two_signals_end_a_job_at_once(log: Log) -> None:
    path, directory = script(log, "20ms"), Path(log.path)
    append(log, 0, 500)
    with started(directory, "run", path) as process:
        wait_until(lambda: copied(log) == 500, process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        end = ended(process)
    # The second one may come when the first has done its work already.
    assert end.code in {0, 130}
    assert "Traceback" not in end.error
    assert log.topic("copy").stable_ends() == log.topic("copy").durable_ends()


def counted(log: Log) -> list[tuple[int, str, int, int]]:
    hours = log.topic("hours").to_arrow()
    starts = hours["window_start"].cast(pa.int64()).to_pylist()
    columns = (hours[name].to_pylist() for name in ("user", "n", "total"))
    return sorted(zip(starts, *columns, strict=True))


def expected_hours(rows: int) -> list[tuple[int, str, int, int]]:
    hours: dict[tuple[int, str], tuple[int, int]] = {}
    for number in range(rows):
        hour = number // 100 * HOUR_US, "abc"[number % 3]
        count, total = hours.get(hour, (0, 0))
        hours[hour] = count + 1, total + number
    return sorted((*hour, *each) for hour, each in hours.items())
