"""Bad input ends with one clear message and code 2; there is no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from tests.cli.conftest import Command
from tests.cli.process_kit import Ended, ended, run, started, wait_until

CLICKS = pa.table(
    {
        "time": pa.array([hour * 3_600_000_000 for hour in range(6)], pa.timestamp("us", "UTC")),
        "user": list("ababab"),
        "n": pa.array(range(6), pa.int64()),
    }
)

JOB = """\
import millstream as ms
from millstream import col

clicks = ms.stream("clicks", time="time", lateness="1h")
{line}
if __name__ == "__main__":
    ms.run(result.to("result"), checkpoint_interval="50ms")
"""


@pytest.fixture
def log(log_directory: Path) -> Log:
    log = Log(log_directory)
    log.create_topic("clicks", CLICKS.schema)
    with log.producer("clicks") as producer:
        producer.append(CLICKS)
    return log


def job(log: Log, line: str) -> Path:
    path = Path(log.path).parent / "job.py"
    path.write_text(JOB.format(line=line))
    return path


def refused(end: Ended) -> str:
    """Check that a command ended as one should that was given bad input; return what it said."""
    assert (end.code, end.out) == (2, ""), end
    assert "Traceback" not in end.error
    assert end.error.count("error: ") == 1, end.error
    last = end.error.splitlines()[-1]
    assert last.startswith("error: "), end.error
    return last.removeprefix("error: ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'result = ms.stream("click")',
            "no topic 'click' in the log '{log}'; did you mean 'clicks'?",
        ),
        (
            'result = clicks.filter(col("usr") == "a")',
            "no column 'usr'; did you mean 'user'?",
        ),
        (
            'result = clicks.filter(col("user") > 5)',
            'cannot compare col("user") (string) with 5 (int64); cast one',
        ),
        (
            'result = clicks.select("user").window(ms.tumbling("1h")).agg(n=ms.count())',
            "a window needs event time, and these rows have none; name the column",
        ),
        (
            'result = clicks.window(ms.tumbling("1 fortnight")).agg(n=ms.count())',
            "size='1 fortnight' is no duration",
        ),
        ('result = ms.stream("clicks", time="n")', "the time column of 'clicks' must be"),
    ],
)
def test_a_mistake_in_a_job_is_said_at_its_line(
    log: Log, millstream: Command, line: str, said: str
) -> None:
    script = job(log, line)
    message = refused(Ended(*millstream("run", script, "--until", "end")))
    assert message.startswith(f"{script}:5: ")
    assert said.format(log=log.path) in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consume", "click"], "did you mean 'clicks'?"),
        (["topics", "describe", "click"], "did you mean 'clicks'?"),
        (["consume", "clicks", "--columns", "usr"], "did you mean 'user'?"),
        (["consume", "clicks", "--from", "noon"], "--from must be beginning, end, an offset"),
        (["consume", "clicks", "--log", "/nowhere"], "there is no log in '/nowhere'"),
        (["run", "nowhere.py"], "there is no script 'nowhere.py'"),
    ],
)
@pytest.mark.usefixtures("log")
def test_a_mistake_on_the_command_line(
    millstream: Command, arguments: list[str], said: str
) -> None:
    assert said in refused(Ended(*millstream(*arguments)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consume"], "Missing argument 'TOPIC'"),
        (["consume", "clicks", "--limit", "0"], "Invalid value for '--limit'"),
        (["run", "job.py", "--parallelism", "none"], "Invalid value for '--parallelism'"),
        (["run", "job.py", "--until", "noon"], "Invalid value for '--until'"),
        (["topics", "list", "--lgo", "x"], "No such option: --lgo"),
        (["toopics"], "No such command 'toopics'"),
    ],
)
def test_an_option_that_is_none_comes_with_the_usage(
    millstream: Command, arguments: list[str], said: str
) -> None:
    code, out, error = millstream(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("Usage: millstream")
    assert said in error


def test_a_flipped_byte_is_found_by_readers_and_jobs(log: Log, millstream: Command) -> None:
    (segment,) = Path(log.path, "topics").glob("*/*/0/*.arrows")
    stored = bytearray(segment.read_bytes())
    stored[stored.index(b"ababab")] ^= 1
    segment.write_bytes(stored)
    script = job(log, "result = clicks")
    for end in (
        Ended(*millstream("consume", "clicks")),
        run(Path(log.path), "run", script, "--until", "end"),
    ):
        message = refused(end)
        for word in ("clicks/0", "offset 0", "column 'user'", str(segment)):
            assert word in message
    # What is not read is not looked at, and nothing of the job is to be seen.
    _, out, _ = millstream("consume", "clicks", "--columns", "n", "--format", "jsonl")
    assert [json.loads(line)["n"] for line in out.splitlines()] == list(range(6))
    assert log.topic("result").to_arrow().num_rows == 0
    assert log.topic("result").stable_ends() == log.topic("result").durable_ends()


def test_a_second_run_of_a_job_fences_the_first(log: Log) -> None:
    script, directory = job(log, "result = clicks"), Path(log.path)

    def copied() -> bool:
        return "result" in log.topic_names() and log.topic("result").stable_ends() == [6]

    with started(directory, "run", script) as first:
        wait_until(copied, first)
        second = run(directory, "run", script, "--until", "end")
        assert second.code == 0, second
        message = refused(ended(first))
    assert "'job job' writes with epoch 1, but epoch 2 was taken since" in message
    assert "another run of it started" in message
    assert log.topic("result").to_arrow() == CLICKS


def test_a_row_that_cannot_be_used_is_named_and_ends_the_job(log: Log, millstream: Command) -> None:
    with log.producer("clicks") as producer:
        producer.append(pa.table({"user": ["c"], "n": pa.array([7], pa.int64())}))
    line = 'result = clicks{}.key_by("user").window(ms.tumbling("1h")).agg(n=ms.count())'
    script = job(log, line.format(""))
    end = run(Path(log.path), "run", script, "--until", "end")
    assert (end.code, end.out) == (1, "")
    assert "Traceback" not in end.error
    error = end.error.splitlines()[-1]
    assert error.startswith(f"error: {script}:5: operator 'window-user' failed (at clicks/0, ")
    assert "column 'time' is null" in error
    # The remedy that the message gives is one.
    assert ".filter(col('time').is_not_null())" in error
    script = job(log, line.format(".filter(col('time').is_not_null())"))
    end = Ended(*millstream("run", script, "--until", "end"))
    assert end.code == 0, end
    assert log.topic("result").to_arrow().num_rows == 6
