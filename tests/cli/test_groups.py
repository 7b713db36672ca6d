"""`millstream groups`: lists, descriptions, resets, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millstream.log import Log
from tests.cli.conftest import Command

pytestmark = pytest.mark.usefixtures("clicks")


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def billing(clicks: None, log_directory: Path) -> None:
    """A group that has committed 5 of the 8 clicks."""
    with Log(log_directory).consumer("clicks", group="billing", auto_commit=False) as consumer:
        assert consumer.poll(rows_max=5) is not None
        consumer.commit()


@pytest.mark.usefixtures("billing")
def test_a_list_has_a_line_for_each_group(millstream: Command) -> None:
    code, out, _ = millstream("groups", "list")
    assert code == 0
    assert ["billing", "empty", "0", "1", "3"] in lines(out)
    code, out, _ = millstream("groups", "list", "--json")
    summary = {"name": "billing", "state": "empty", "members": 0, "partitions": 1, "lag": 3}
    assert (code, json.loads(out)) == (0, [summary])


def test_there_may_be_none(millstream: Command, log_directory: Path) -> None:
    assert millstream("groups", "list") == (0, "", f"no groups in {log_directory}\n")


@pytest.mark.usefixtures("billing")
def test_a_description_tells_members_and_lag(millstream: Command, log_directory: Path) -> None:
    with Log(log_directory).consumer("clicks", group="billing", member="one") as consumer:
        consumer.poll(rows_max=1)
        code, out, _ = millstream("groups", "describe", "billing")
        assert code == 0
        assert out.startswith("billing, stable, 1 member, generation ")
        (member,) = (words for words in lines(out) if words[:1] == ["one"])
        assert member[1].isdigit()
        assert member[2:] == ["0", "s", "ago", "clicks/0"]
        (partition,) = (words for words in lines(out) if words[:1] == ["clicks"])
        assert partition[:5] == ["clicks", "0", "5", "8", "3"]
        assert partition[-1] == "one"
        code, out, _ = millstream("groups", "describe", "billing", "--json")
        assert code == 0
        described = json.loads(out)
        assert described["partitions"][0]["committed"] == 5
        assert described["members"][0]["owned"] == [["clicks", 0]]


@pytest.mark.usefixtures("billing")
@pytest.mark.parametrize(
    ("options", "after"),
    [
        (["--to", "beginning"], 0),
        (["--to", "end"], 8),
        (["--to", "6"], 6),
        (["--to", "2024-01-01T10:20"], 2),
        (["--to", "2024-01-01T10:20:00-01:00"], 8),
        (["--shift", "-2", "--topic", "clicks"], 3),
        (["--shift", "1", "--topic", "clicks/0"], 6),
    ],
)
def test_a_reset_shows_what_it_does(
    millstream: Command, log_directory: Path, options: list[str], after: int
) -> None:
    group = Log(log_directory).group("billing")
    code, out, error = millstream("groups", "reset", "billing", *options, "--dry-run")
    assert code == 0
    assert ["clicks", "0", "5", f"{after}", f"{after - 5:+}"] in lines(out)
    assert error == "nothing was changed; leave out --dry-run to do it\n"
    assert list(group.committed().values()) == [5]
    code, out, error = millstream("groups", "reset", "billing", *options, "--json")
    assert (code, error) == (0, "")
    assert json.loads(out) == [
        {"topic": "clicks", "generation": 0, "partition": 0, "from": 5, "to": after}
    ]
    assert list(group.committed().values()) == [after]


def test_a_new_group_is_made_where_topics_are_named(
    millstream: Command, log_directory: Path
) -> None:
    code, out, _ = millstream("groups", "reset", "new", "--to", "end", "--topic", "clicks")
    assert code == 0
    assert ["clicks", "0", "–", "8", "–"] in lines(out)
    assert Log(log_directory).groups() == ["new"]


@pytest.mark.usefixtures("billing")
def test_a_group_is_deleted(millstream: Command, log_directory: Path) -> None:
    assert millstream("groups", "delete", "billing") == (0, "", "group 'billing' is deleted\n")
    assert Log(log_directory).groups() == []


@pytest.mark.usefixtures("billing")
def test_nothing_is_changed_while_members_live(millstream: Command, log_directory: Path) -> None:
    with Log(log_directory).consumer("clicks", group="billing") as consumer:
        consumer.poll()
        for arguments in (["reset", "billing", "--to", "end"], ["delete", "billing"]):
            code, out, error = millstream("groups", *arguments)
            assert (code, out) == (2, "")
            assert "group 'billing' has living members, e.g. 'member:" in error
        code, _, _ = millstream("groups", "reset", "billing", "--to", "end", "--dry-run")
        assert code == 0


@pytest.mark.usefixtures("billing")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "biling"], "no group 'biling' in the log"),
        (["describe", "biling"], "did you mean 'billing'?"),
        (["delete", "none"], "no group 'none'"),
        (["reset", "none", "--to", "end"], "no group 'none'"),
        (["reset", "a/b", "--to", "end"], "'a/b' cannot be a group's name"),
        (["reset", "billing"], "give one of beginning, end, an offset, a time and a shift"),
        (["reset", "billing", "--to", "end", "--shift", "1"], "give one of"),
        (["reset", "billing", "--to", "noon"], "an offset or a time like 2024-01-31T12:00; got"),
        (["reset", "billing", "--to", "end", "--topic", "click"], "did you mean 'clicks'?"),
        (["reset", "billing", "--to", "end", "--topic", "a/b"], "or a partition as TOPIC/NUMBER"),
        (["reset", "billing", "--to", "end", "--topic", "clicks/1"], "partitions 0 to 0; got 1"),
    ],
)
def test_mistakes(millstream: Command, arguments: list[str], message: str) -> None:
    code, out, error = millstream("groups", *arguments)
    assert (code, out) == (2, "")
    assert message in error
