"""Facts, upserts and changelogs: what each node takes and gives, and what is put between."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import millstream as ms
from millstream import col
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.dsl.table import Table, table
from millstream.errors import UnboundedStateWarning, UserError
from millstream.operators.consolidate import ConsolidateConfig
from millstream.operators.dedup import DedupConfig
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.group_combine import GroupCombineConfig
from millstream.operators.latest_rows import LatestRowsConfig
from millstream.operators.operator import ChangeMode, OperatorConfig
from millstream.operators.top import TopConfig
from millstream.plan import nodes
from millstream.plan.compile import compile_plan
from millstream.runtime.graph import JobGraph, SourceNode
from tests.dsl.known_topics import KnownTopics


@pytest.fixture
def counts(flights: Stream) -> Stream:
    return flights.key_by("origin").agg(ttl="never", flights=ms.count(), worst=ms.max("dep_delay"))


def graph(*sinks: ms.Sink, parallelism: int = 1) -> JobGraph:
    return compile_plan([each.node for each in sinks], "job", parallelism).graph


def configs(job: JobGraph) -> dict[str, OperatorConfig]:
    return {each.name: each.config for stage in job.stages for each in stage.operators}


def sources(job: JobGraph) -> dict[str, SourceNode]:
    return {each.name: each for stage in job.stages for each in stage.sources}


def test_facts_stay_facts_and_changes_stay_changes(
    flights: Stream, counts: Stream, airlines: Table
) -> None:
    assert flights.node.mode is ChangeMode.APPEND
    assert flights.filter(col("year") > 1).select("year").node.mode is ChangeMode.APPEND
    assert airlines.node.mode is ChangeMode.UPSERT
    for changes in (
        counts,
        counts.filter(col("flights") > 1),
        counts.select("origin"),
        counts.union(counts),
        airlines.filter(col("year") > 1),
        counts.key_by("flights"),
        counts.key_by("flights").agg(n=ms.count()),
    ):
        assert changes.node.mode is ChangeMode.CHANGELOG
        assert changes.node.time_column is None
    assert counts.to_stream().node.mode is ChangeMode.APPEND
    assert flights.to_table("origin").node.mode is ChangeMode.UPSERT


def test_a_tables_own_key_groups_nothing_until_it_is_asked_to(
    flights: Stream, counts: Stream, airlines: Table
) -> None:
    def groups(rows: Stream) -> tuple[str, ...]:
        return rows.agg(ttl="never", n=ms.count()).node.keys

    assert groups(flights.key_by("origin")) == ("origin",)
    for rows in (
        flights,
        airlines,
        counts,
        counts.filter(col("flights") > 1),
        counts.union(counts),
    ):
        assert groups(rows) == ()
    assert groups(counts.key_by("origin").filter(col("flights") > 1)) == ("origin",)
    assert groups(flights.to_table("origin")) == ()
    assert groups(airlines.to_stream()) == ("carrier",)


def test_what_tells_rows_apart_follows_its_columns(counts: Stream, airlines: Table) -> None:
    assert counts.node.unique == ("origin",)
    assert counts.rename({"origin": "from"}).node.unique == ("from",)
    assert counts.drop("origin").node.unique is None
    assert counts.union(counts).node.unique is None
    assert airlines.rename({"carrier": "code"}).filter(col("year") > 1).node.unique == ("code",)
    assert counts.key_by("flights").agg(n=ms.count()).node.unique == ("flights",)


REFUSED: dict[str, Callable[[Stream, Table], object]] = {
    'mode="append" takes rows that are never taken back': lambda counts, _: counts.to("x"),
    r"a window takes rows that are never taken back.*changes since test_changes.py:\d+.*to_stream":
        lambda counts, _: counts.window(ms.tumbling("1h")),
    "a join with a table takes rows that are never taken back":
        lambda counts, airlines: counts.join(airlines, left_on="origin", right_on="carrier"),
    "these rows are a stream already": lambda counts, _: counts.to_stream().to_stream(),
    r"a table needs a key, e\.g\. to_table\('flights'\)":
        lambda counts, _: counts.select("flights").to_table(),
    "to_table needs one row for each flights of these changes, and they have a row for each origin":
        lambda counts, _: counts.to_table("flights"),
    "nothing tells their rows apart; keep the key columns":
        lambda counts, _: counts.drop("origin").to("x", mode="upsert"),
    "needs a key; name it with .key_by":
        lambda _, airlines: airlines.to_stream().drop("carrier").agg(n=ms.count()).to(
            "x", mode="upsert"
        ),
    "join takes a table that is a topic":
        lambda counts, _: counts.to_stream().join(counts.to_table("origin"), on="origin"),
    'mode is "append", "upsert" or "changelog"; got \'replace\'':
        lambda counts, _: counts.to("x", mode="replace"),  # type: ignore[arg-type]  # on purpose
    "topic 'untimed' exists and is no table": lambda counts, _: counts.to("untimed", mode="upsert"),
    "the key of table 'airlines' is carrier, and these rows are told apart by origin":
        lambda counts, _: counts.to("airlines", mode="upsert"),
    r"first goes by event time, and these changes.*use ms.arg_min\(…, by=…\)":
        lambda counts, _: counts.agg(x=ms.first("flights")),
    r"collect_list of list<item: string> cannot take a row back.*'x' is over changes":
        lambda counts, _: counts.agg(x=ms.collect_list(col("origin").str.split(" "))),
    "dedup takes rows that are never taken back.*a table has one row a key already":
        lambda counts, _: counts.dedup(),
    "top orders by numbers, times, dates and booleans; 'name' is string":
        lambda _, airlines: airlines.top(3, by="name"),
    "top keeps a number of rows, at least 1; got 0": lambda counts, _: counts.top(0, by="worst"),
    "top needs columns that order rows": lambda counts, _: counts.top(1, by=[]),
    "dedup needs a key, e.g. dedup": lambda _, airlines: airlines.to_stream().select("op").dedup(),
    "dedup within a time needs event time":
        lambda counts, _: counts.to_stream().dedup("origin", within="1h"),
    "no column 'names'; did you mean 'name'":
        lambda _, airlines: airlines.to_stream().dedup("names"),
    "'carrier' is a key of table 'airlines' and stays as it is":
        lambda _, airlines: airlines.select(carrier=col("name")),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_is_an_error_at_the_users_line(
    reason: str, counts: Stream, airlines: Table
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        REFUSED[reason](counts, airlines)
    assert re.match(r".*test_changes\.py:\d+: ", str(caught.value))


def test_upserts_become_a_changelog_where_somebody_needs_to_know_what_they_replace(
    airlines: Table,
) -> None:
    per_year = airlines.key_by("year").agg(n=ms.count())
    found = configs(graph(per_year.to("x", mode="upsert"), airlines.to_stream().to("y")))
    latest = [each for each in found.values() if isinstance(each, LatestRowsConfig)]
    assert len(latest) == 1  # both read the same
    assert latest[0].key_columns == ("carrier",)
    assert sources(graph(per_year.to("x", mode="upsert")))["changes-airlines"].changes


def test_a_table_that_is_copied_keeps_no_rows(airlines: Table, flights: Stream) -> None:
    job = graph(airlines.to("copy", mode="upsert"))
    assert configs(job) == {}
    (sink,) = job.stages[0].sinks
    assert sink.upsert
    assert sink.key_columns == ("carrier",)
    untimed = flights.drop("scheduled").key_by("origin").to("latest", mode="upsert")
    assert not any(isinstance(each, LatestRowsConfig) for each in configs(graph(untimed)).values())


def test_the_latest_row_of_a_stream_with_time_is_found_by_time(flights: Stream) -> None:
    (found,) = configs(graph(flights.key_by("origin").to("x", mode="upsert"))).values()
    assert isinstance(found, LatestRowsConfig)
    assert (found.key_columns, found.order) == (("origin",), "scheduled")


def test_a_table_is_joined_whole_and_its_changes_are_shared(
    flights: Stream, airlines: Table
) -> None:
    joined = flights.join(airlines.select("name"), on="carrier").to("x")
    job = graph(joined, airlines.to_stream().to("y"), parallelism=2)
    assert {name: (each.role, each.changes) for name, each in sources(job).items()} == {
        "source-flights": ("stream", False),
        "table-airlines": ("table", False),
        "changes-airlines": ("stream", True),
    }


def test_rows_are_combined_before_they_cross_where_they_merge(counts: Stream) -> None:
    outer = counts.key_by("flights").agg(n=ms.count(), total=ms.sum("flights"))
    job = graph(outer.to("x", mode="upsert"), parallelism=2)
    kinds = [type(each) for each in configs(job).values()]
    assert kinds == [
        GroupCombineConfig, GroupAggregateConfig, GroupCombineConfig, GroupAggregateConfig,
    ]  # fmt: skip
    by_op = counts.to_stream().key_by("op")
    for aggregate, count in ((ms.last("origin"), 2), (ms.collect_list("origin"), 1)):
        sink = by_op.agg(ttl="never", x=aggregate).to("x", mode="changelog")
        found = configs(graph(sink, parallelism=2))
        assert [type(each) for each in found.values()].count(GroupCombineConfig) == count
    # An extreme that may be taken back needs every value.
    outer = counts.key_by("flights").agg(n=ms.max("worst"))
    job = graph(outer.to("x", mode="upsert"), parallelism=2)
    kinds = [type(each) for each in configs(job).values()]
    assert kinds == [GroupCombineConfig, GroupAggregateConfig, GroupAggregateConfig]
    assert len(job.stages) == 3
    assert len(graph(outer.to("x", mode="upsert")).stages) == 1


def test_nothing_crosses_where_rows_lie_by_their_key(log: KnownTopics) -> None:
    keyed = stream("keyed", log=log).key_by("origin").agg(ttl="never", n=ms.count())
    assert len(graph(keyed.to("x", mode="upsert"), parallelism=2).stages) == 1
    log.add("wide", table("airlines", log=log).schema, partitions=4, key=("carrier",), table=True)
    changes = table("wide", log=log).filter(col("year") > 1).to_stream().to("x")
    assert len(graph(changes, parallelism=2).stages) == 1
    assert len(graph(changes, parallelism=3).stages) == 2


def test_as_many_workers_as_a_table_of_which_changes_are_read_has_partitions(
    log: KnownTopics,
) -> None:
    log.add("wide", table("airlines", log=log).schema, partitions=4, key=("carrier",), table=True)
    (sink,) = graph(table("wide", log=log).to_stream().to("x")).stages[0].sinks
    assert sink.partitions == 4


def test_changes_that_may_cancel_are_consolidated_before_each_counts(counts: Stream) -> None:
    narrow = configs(graph(counts.select("origin").to_stream().to("x")))
    assert any(isinstance(each, ConsolidateConfig) for each in narrow.values())
    whole = configs(graph(counts.filter(col("flights") > 1).to_stream().to("x")))
    assert not any(isinstance(each, ConsolidateConfig) for each in whole.values())


def test_every_change_of_a_table_is_a_row_whoever_reads_it(counts: Stream) -> None:
    # The worst delay is needed by nobody, but a change of it is a change.
    job = graph(counts.to_stream().select("origin", "op").to("x"))
    (found,) = [each for each in configs(job).values() if isinstance(each, GroupAggregateConfig)]
    assert [each.name for each in found.aggregates] == ["flights", "worst"]


def test_explain_shows_what_rows_are_to_each_other(counts: Stream, airlines: Table) -> None:
    sinks = [counts.to("x", mode="upsert"), airlines.to_stream().to("y")]
    text = ms.dsl.job.explain([each.node for each in sinks], False, 1, "").text
    for line in (
        "running aggregates by origin: flights = count(), worst = max(dep_delay) [changelog]",
        "to x (the latest row of each key) [changelog]",
        "table airlines (key carrier; one version, no time) [upsert]",
        "a row for each change, with op",
        "takes append, gives changelog",
        "takes upsert, gives changelog",
        "takes changelog, gives append",
        "changes-airlines: reads the changes of table airlines: all 3 columns",
        "sink-x ◀ group-origin: writes the latest row of each key to table x by origin",
        "keep the latest row by carrier; upsert → changelog",
    ):
        assert line in text, text


def test_the_best_rows_of_a_key_are_found_where_its_rows_lie(
    flights: Stream, counts: Stream
) -> None:
    worst = flights.key_by("origin").top(3, by=["dep_delay", col("year") * 2])
    assert worst.schema == flights.schema
    assert worst.node.keys == ("origin",)
    job = graph(worst.to("x", mode="changelog"), parallelism=2)
    assert len(job.stages) == 2
    (found,) = [each for each in configs(job).values() if isinstance(each, TopConfig)]
    assert (found.by, found.then) == (("dep_delay", "__by_1"), ("scheduled",))
    assert (found.limit, found.ascending, found.takes_changes) == (3, False, False)
    of_counts = counts.top(1, by="flights", ascending=True)
    assert of_counts.node.unique == ()
    text = of_counts.explain(parallelism=2).text
    assert "exchange to one worker: the top is over all rows, without a key" in text
    assert "top 1, the least flights first [changelog]" in text
    assert counts.top(2, by="flights").node.unique == ("origin",)


def test_the_first_rows_are_stamped_where_time_counts(flights: Stream) -> None:
    ever = flights.dedup("origin", "dest", within="ever")
    hour = flights.key_by("origin").dedup(within="1h")
    assert not sources(graph(ever.to("x")))["source-flights"].stamped
    assert sources(graph(hour.to("x")))["source-flights"].stamped
    assert hour.node.time_column == "scheduled"
    (found,) = configs(graph(hour.to("x"))).values()
    assert isinstance(found, DedupConfig)
    assert found == DedupConfig(found.schema, ("origin",), "scheduled", 3_600_000_000)
    assert "first row by origin within 1h" in hour.explain().text
    assert set(sources(graph(ever.select("dest").to("x")))["source-flights"].schema.names) == {
        "origin", "dest", "scheduled",
    }  # fmt: skip


def test_a_node_keeps_its_line(counts: Stream) -> None:
    assert isinstance(counts.node, nodes.GroupAggregate)
    assert "test_changes.py" in counts.node.location


def test_state_that_may_grow_without_bound_is_warned_of_when_built(
    flights: Stream, airlines: Table
) -> None:
    keyed = flights.key_by("origin")
    with pytest.warns(UnboundedStateWarning, match=r"test_changes\.py:\d+.*every origin that"):
        keyed.agg(n=ms.count())
    with pytest.warns(UnboundedStateWarning, match='forget keys with within="1d"'):
        keyed.dedup()
    # Nothing is unbounded here: filterwarnings would raise.
    assert keyed.agg(ttl="1d", n=ms.count()).node.ttl_us == 86_400_000_000  # type: ignore[union-attr]  # a GroupAggregate
    keyed.dedup(within="1h")
    flights.agg(n=ms.count())
    airlines.key_by("year").agg(n=ms.count())


def test_a_ttl_is_by_event_time(log: KnownTopics, flights: Stream, airlines: Table) -> None:
    sink = flights.key_by("origin").agg(ttl="1d", n=ms.count()).to("x", mode="upsert")
    job = graph(sink, parallelism=2)
    (found,) = configs(job).values()  # nothing is combined: rows must reach it with their stamps
    assert isinstance(found, GroupAggregateConfig)
    assert (found.time_column, found.ttl_us) == ("scheduled", 86_400_000_000)
    assert sources(job)["source-flights"].stamped
    assert "running aggregates by origin, kept for 1d: n = count()" in sink.explain().text
    for rows, reason in (
        (stream("untimed", log=log).drop("scheduled"), "a TTL needs event time"),
        (airlines, "a TTL takes rows that are never taken back"),
    ):
        with pytest.raises(UserError, match=reason):
            rows.key_by("carrier").agg(ttl="1d", n=ms.count())
