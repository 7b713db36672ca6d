"""Settings of topics: their defaults, what is refused, and when they hold."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import InvalidTopicError, UnknownTopicError
from millstream.log import Log
from millstream.log.settings import TopicSettings, altered_config, parse_config
from millstream.storage_memory import SimulatedCrash
from tests.log.log_kit import SCHEMA, another, memory, memory_log, put


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("retention.ms", "60000", 60_000),
        ("retention.ms", -1, -1),
        ("retention.bytes", 2**40, 2**40),
        ("segment.ms", 1e3, 1_000),
        ("min.cleanable.dirty.ratio", "0.25", 0.25),
        ("min.cleanable.dirty.ratio", 1, 1.0),
        ("cleanup.policy", "compact", "compact"),
        ("cleanup.policy", "delete, compact", "compact,delete"),
    ],
)
def test_values_are_parsed(name: str, value: object, parsed: object) -> None:
    found = parse_config({name: value}, "x")
    assert found == {name: parsed}
    assert type(found[name]) is type(parsed)
    assert TopicSettings.of(found).by_name()[name] == parsed


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("retention.mss", 1, "no setting 'retention.mss'; did you mean 'retention.ms'"),
        ("retention_ms", 1, "did you mean 'retention.ms'"),
        ("retention.ms", -2, "whole number from -1 to 9223372036854775807; got -2"),
        ("retention.ms", 2**63, "got 9223372036854775808"),
        ("retention.ms", "a day", "got 'a day'"),
        ("retention.ms", 1.5, "got 1.5"),
        ("retention.ms", True, "got True"),
        ("retention.ms", [1], r"got \[1\]"),
        ("segment.bytes", 0, "from 1 to"),
        ("segment.bytes", float("inf"), "got inf"),
        ("min.cleanable.dirty.ratio", float("nan"), "a number from 0.0 to 1.0; got nan"),
        ("min.cleanable.dirty.ratio", 1.01, "got 1.01"),
        ("cleanup.policy", "compacted", "'delete' or 'compact' or 'compact,delete'; got"),
        ("cleanup.policy", "delete,delete", "got 'delete,delete'"),
    ],
)
def test_mistakes_name_the_remedy(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidTopicError, match=message):
        parse_config({name: value}, "x")


def test_defaults_are_not_stored(tmp_path: Path) -> None:
    topic = Log(tmp_path).create_topic("x", SCHEMA, config={"retention.ms": "5"})
    stored = json.loads((Path(topic.directory) / "topic.json").read_text())
    assert stored["config"] == {"retention.ms": 5}


def test_a_table_is_compacted_unless_told_otherwise() -> None:
    assert TopicSettings.of({}).cleanup_policy == "delete"
    assert TopicSettings.of({}, table=True).cleanup_policy == "compact"
    assert not TopicSettings.of({"cleanup.policy": "delete"}, table=True).compacts
    both = TopicSettings.of({"cleanup.policy": "compact,delete"})
    assert (both.compacts, both.deletes) == (True, True)


def test_changes_set_and_remove() -> None:
    known = {"retention.ms": 5, "segment.ms": 7}
    changed = altered_config(known, {"segment.ms": None, "segment.bytes": "9"}, "x")
    assert changed == {"retention.ms": 5, "segment.bytes": 9}
    assert altered_config(known, {"retention.bytes": None}, "x") == known


class TestAltering:
    def test_everybody_sees_it(self) -> None:
        log = memory_log()
        log.create_topic("x", SCHEMA)
        other = another(log)
        open_there = other.topic("x")
        log.alter_topic("x", config={"retention.ms": 5})
        assert log.topic("x").config.config == {"retention.ms": 5}
        described: Any = open_there.describe()
        assert described["config"] == {"retention.ms": 5}
        assert described["settings"]["retention.ms"] == 5
        # Each starts from what the other left, not from what it knew.
        other.alter_topic("x", config={"retention.bytes": 6})
        log.alter_topic("x", config={"retention.ms": None})
        assert another(log).topic("x").config.config == {"retention.bytes": 6}

    def test_what_is_refused_changes_nothing(self) -> None:
        log = memory_log()
        log.create_topic("x", SCHEMA, config={"retention.ms": 5})
        for changes in ({"retention.ms": 6, "segment.ms": 0}, {"cleanup.policy": "compact"}):
            with pytest.raises(InvalidTopicError):
                log.alter_topic("x", config=changes)
        assert another(log).topic("x").config.config == {"retention.ms": 5}
        with pytest.raises(UnknownTopicError):
            log.alter_topic("y", config={})

    def test_an_open_partition_follows_at_the_next_segment(self) -> None:
        log = memory_log()
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 2_000})
        put(log, "x", [1])
        another(log).alter_topic("x", config={"segment.bytes": 10**6})
        partition = topic.partition(0)
        while len(partition.segments()) == 1:
            put(log, "x", range(10))
        for _ in range(20):
            put(log, "x", range(10))
        assert len(partition.segments()) == 2

    def test_a_crash_leaves_the_old_or_the_new_settings(self) -> None:
        for effects in range(30):
            log = memory_log()
            log.create_topic("x", SCHEMA, config={"retention.ms": 5})
            memory(log).crash_after(effects)
            with suppress(SimulatedCrash):
                log.alter_topic("x", config={"retention.ms": 6})
                assert effects > 3
                return
            memory(log).disk.power_cut()
            found = another(log).topic("x").config.config["retention.ms"]
            assert found in (5, 6)
        pytest.fail("it never came through")
