from __future__ import annotations

import pytest

from millstream.dsl.table import Table, table
from millstream.errors import PlanError, UnknownColumnError
from millstream.plan.nodes import TableSource
from tests.dsl.known_topics import KnownTopics


def test_a_table_shows_itself(airlines: Table) -> None:
    assert repr(airlines) == (
        "table airlines by carrier (carrier: string, name: string, year: int64)"
    )


def test_the_keys_stay_whatever_is_chosen(airlines: Table) -> None:
    assert airlines.select("name").schema.names == ["carrier", "name"]
    assert airlines.drop("name").keys == ("carrier",)


def test_a_renamed_column_still_comes_from_the_topics(airlines: Table) -> None:
    renamed = airlines.rename({"carrier": "code", "year": "founded"}).drop("name")
    assert renamed.keys == ("code",)
    assert isinstance(renamed.node, TableSource)
    assert renamed.node.columns == (("code", "carrier"), ("founded", "year"))


def test_the_key_may_be_left_out_or_given_in_any_order(log: KnownTopics) -> None:
    assert table("planes", log=log).keys == table("planes", key=["dest", "year"], log=log).keys


def test_the_time_of_a_table_follows_its_column(log: KnownTopics) -> None:
    assert table("planes", log=log).node.time_column == "changed"
    assert table("planes", log=log).rename({"changed": "at"}).node.time_column == "at"


def test_mistakes(airlines: Table) -> None:
    with pytest.raises(UnknownColumnError, match="did you mean 'name'"):
        airlines.select("names")
    with pytest.raises(PlanError, match="two columns would be called 'name'"):
        airlines.rename({"year": "name"})


def test_a_named_table(airlines: Table) -> None:
    assert airlines.named("carriers").node.name == "carriers"
