"""`millstream topics`: what is in the log, and who holds readers back."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.log import Log
from tests.cli.conftest import Command


@pytest.mark.usefixtures("clicks")
def test_a_list_has_a_line_for_each_topic(millstream: Command, log_directory: Path) -> None:
    Log(log_directory).create_topic(
        "users", pa.schema({"user": pa.string()}), key=("user",), table=True
    )
    code, out, _ = millstream("topics", "list")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["clicks", "stream", "1", "8", "time"] in lines
    assert ["users", "table", "1", "0", "user"] in lines


def test_an_empty_log_has_no_topics(millstream: Command, log_directory: Path) -> None:
    log_directory.mkdir()
    assert millstream("topics", "list") == (0, "", f"no topics in {log_directory}\n")


def test_no_name_is_cut_however_narrow_the_terminal(
    millstream: Command, log_directory: Path
) -> None:
    name = "a_topic_with_a_name_of_a_decent_length." * 6
    Log(log_directory).create_topic(name, pa.schema({"[bold]": pa.int64()}), key=("[bold]",))
    _, out, _ = millstream("topics", "list")
    assert name in out
    assert "[bold]" in out


@pytest.mark.usefixtures("clicks")
def test_a_description_tells_options_columns_and_partitions(
    millstream: Command, log_directory: Path
) -> None:
    code, out, _ = millstream("topics", "describe", "clicks")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith("clicks, a stream of 1 partition\n")
    for words in (
        ["key", "–"],
        ["time", "time"],
        ["durability", "fsync"],
        ["directory", str(log_directory / "topics" / "00000001")],
        ["time", "timestamp[us,", "tz=UTC]", "yes", "time"],
        ["user", "string", "yes"],
    ):
        assert words in lines
    (size,) = (sum(size for _, size in Log(log_directory).topic("clicks").partition(0).segments()),)
    # partition, first offset, stable end, durable end, segments, size
    assert ["0", "0", "8", "8", "1", f"{size / 1024:.1f}", "KiB"] in lines


@pytest.mark.usefixtures("clicks")
def test_who_holds_readers_back_is_named(millstream: Command, log_directory: Path) -> None:
    log = Log(log_directory)
    with pytest.raises(ZeroDivisionError), log.transaction("billing") as transaction:
        transaction.append("clicks", pa.table({"user": ["c"], "n": pa.array([9], pa.int64())}))
        log.topic("clicks").partition(0).sync()
        _, out, _ = millstream("topics", "describe", "clicks")
        _ = 1 / 0
    assert ["0", "0", "8", "9", "1"] in [line.split()[:5] for line in out.splitlines()]
    told = " ".join(out.split())
    assert "Readers of partition 0 stop at offset 8: 'billing' (epoch 1) has not decided" in told
    assert "transaction 1, open since 20" in told
    _, out, _ = millstream("topics", "describe", "clicks")
    assert "billing" not in out
    _, out, _ = millstream("consume", "clicks", "--format", "jsonl")
    assert [json.loads(line)["n"] for line in out.splitlines()] == list(range(8))


@pytest.mark.usefixtures("clicks")
def test_an_unknown_topic_names_the_nearest(millstream: Command) -> None:
    for command in (["consume"], ["topics", "describe"], ["produce"]):
        code, out, error = millstream(*command, "clickz")
        assert (code, out) == (2, "")
        assert "'clicks'" in error
        assert "Traceback" not in error


def test_a_log_that_is_not_there(millstream: Command, tmp_path: Path) -> None:
    code, _, error = millstream("topics", "list", "--log", tmp_path / "none")
    assert code == 2
    assert f"there is no log in '{tmp_path / 'none'}'" in error
    assert not (tmp_path / "none").exists()
    code, _, error = millstream("consume", "clicks")
    assert code == 2
    assert "name another one with --log DIR or MILLSTREAM_LOG" in error


@pytest.mark.usefixtures("clicks")
def test_settings_are_altered_and_described(millstream: Command) -> None:
    code, out, error = millstream(
        "topics", "alter", "clicks", "--config", "retention.ms=86400000",
        "--config", "min.cleanable.dirty.ratio=0.25",
    )  # fmt: skip
    assert (code, error) == (0, "")
    assert out == "min.cleanable.dirty.ratio = 0.25\nretention.ms = 86400000\n"
    _, out, _ = millstream("topics", "describe", "clicks")
    lines = [line.split() for line in out.splitlines()]
    assert ["retention.ms", "86400000", "set"] in lines
    assert ["retention.bytes", "-1", "default"] in lines
    _, out, _ = millstream("topics", "alter", "clicks", "--delete-config", "retention.ms")
    assert out == "min.cleanable.dirty.ratio = 0.25\n"


@pytest.mark.usefixtures("clicks")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to change"),
        (("--config", "retention.ms"), "NAME=VALUE"),
        (("--config", "retention.m=1"), "did you mean 'retention.ms'"),
        (("--delete-config", "retention.m"), "did you mean 'retention.ms'"),
        (("--config", "segment.bytes=0"), "a whole number from 1 to"),
        (("--config", "cleanup.policy=compact"), "without key columns"),
    ],
)
def test_mistakes_in_settings(
    millstream: Command, arguments: tuple[str, ...], message: str
) -> None:
    code, out, error = millstream("topics", "alter", "clicks", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(error.split())
    assert " set" not in millstream("topics", "describe", "clicks")[1]


@pytest.mark.usefixtures("clicks")
def test_a_topic_gets_other_partitions(millstream: Command, log_directory: Path) -> None:
    code, out, error = millstream("topics", "repartition", "clicks", "3")
    assert (code, out, error) == (0, "clicks: 1 → 3 partitions, generation 1\n", "")
    log = Log(log_directory)
    with log.producer("clicks") as producer:
        producer.append(pa.table({"user": ["z"], "n": [8]}), partition=2)
    _, out, _ = millstream("topics", "list")
    assert ["clicks", "stream", "3", "9", "time"] in [line.split() for line in out.splitlines()]
    _, out, _ = millstream("topics", "describe", "clicks")
    assert out.startswith("clicks, a stream of 3 partitions\n")
    before, after = out.split("Before, in generation 0:")
    assert ["2", "0", "1", "1", "1"] in [line.split()[:5] for line in before.splitlines()]
    assert ["0", "0", "8", "8", "1"] in [line.split()[:5] for line in after.splitlines()]
    for options, found in (
        ((), list(range(9))),
        (("--partition", "2"), [8]),
        (("--from", "0"), [8]),
        (("--from", "end"), []),
    ):
        _, out, _ = millstream("consume", "clicks", "--format", "jsonl", *options)
        assert [json.loads(line)["n"] for line in out.splitlines()] == found


@pytest.mark.usefixtures("clicks")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clicks", "0"), "needs 1 to 4096 partitions; got 0"),
        (("clicks", "5000"), "needs 1 to 4096 partitions; got 5000"),
        (("clickz", "2"), "did you mean 'clicks'"),
        (("clicks", "many"), "Invalid value for 'N'"),
    ],
)
def test_mistakes_in_repartitions(
    millstream: Command, arguments: tuple[str, str], message: str
) -> None:
    code, out, error = millstream("topics", "repartition", *arguments)
    assert (code, out) == (2, "")
    assert message in error
