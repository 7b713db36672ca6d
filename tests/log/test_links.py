"""A symbolic link below a log's folder is refused, whatever it is, and nothing is written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.errors import LinkedPathError
from millstream.log import Log
from tests.log.log_kit import SCHEMA, ids_of, put

SEGMENT = "00000000000000000000.arrows"
PARTITION = "topics/00000001/0/0"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "log")
    log.create_topic("x", SCHEMA, config={"segment.bytes": 1000})
    put(log, "x", range(3))
    put(log, "x", range(3, 20))
    return log


@pytest.mark.parametrize(
    "name",
    [
        "topics",
        "topics/00000001",
        "topics/00000001/topic.json",
        "topics/00000001/0",
        PARTITION,
        f"{PARTITION}/{SEGMENT}",
        f"{PARTITION}/00000000000000000003.arrows",
        f"{PARTITION}/control",
        f"{PARTITION}/append.lock",
    ],
)
def test_links_are_refused(log: Log, tmp_path: Path, name: str) -> None:
    path, elsewhere = Path(log.path) / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    again = Log(log.path)
    with pytest.raises(LinkedPathError, match=f"{name} is a symbolic link"):
        again.topic("x").to_arrow()
    if not name.endswith(SEGMENT):  # nobody appends to the first segment any more
        with pytest.raises(LinkedPathError, match="symbolic link"):
            put(Log(log.path), "x", [20])
    after = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    assert after == before


def test_a_topic_is_not_made_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "topics").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinkedPathError, match="topics is a symbolic link"):
        Log(tmp_path / "log").create_topic("x", SCHEMA)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_logs_own_folder_may_be_a_link(log: Log, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(log.path)
    linked = Log(tmp_path / "link")
    put(linked, "x", [20])
    assert ids_of(linked.topic("x").to_arrow()) == list(range(21))
