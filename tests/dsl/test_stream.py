from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.dsl.table import Table, table
from millstream.errors import (
    ExpressionTypeError,
    OptionError,
    PlanError,
    SchemaMismatchError,
    UnknownColumnError,
    UnknownTopicError,
    UserError,
)
from millstream.plan import nodes
from tests.dsl.known_topics import KnownTopics

HOUR = ms.tumbling("1h")


def test_a_stream_has_the_schema_of_its_topic(flights: Stream) -> None:
    assert flights.schema.names[:2] == ["scheduled", "carrier"]
    assert flights.node.time_column == "scheduled"
    assert repr(flights).startswith("stream (scheduled: timestamp[us, tz=UTC], carrier: string")


def test_the_time_column_comes_in_microseconds_of_utc(log: KnownTopics) -> None:
    log.add("seconds", pa.schema({"at": pa.timestamp("s")}))
    assert stream("seconds", time="at", log=log).schema.field("at").type == pa.timestamp(
        "us", "UTC"
    )
    assert stream("seconds", log=log).schema.field("at").type == pa.timestamp("s")


def test_columns_can_be_chosen_computed_renamed_and_dropped(flights: Stream) -> None:
    chosen = flights.select("origin", col("dep_delay") * 2, hours=col("dep_delay") / 60, one=1)
    assert chosen.schema == pa.schema(
        {"origin": pa.string(), "dep_delay": pa.float64(), "hours": pa.float64(), "one": pa.int64()}
    )
    assert flights.map("origin").schema.names == ["origin"]
    assert flights.drop("year", "dest").schema.names[-1] == "dep_delay"
    renamed = flights.rename({"scheduled": "at", "origin": "from"})
    assert renamed.schema.names[:3] == ["at", "carrier", "from"]
    assert renamed.node.time_column == "at"


def test_a_replaced_column_keeps_its_place_and_a_new_one_goes_last(flights: Stream) -> None:
    changed = flights.with_columns(col("carrier").str.lower(), late=col("dep_delay") > 15)
    assert changed.schema.names == [*flights.schema.names, "late"]
    assert isinstance(changed.node, nodes.Project)


def test_keys_are_columns_or_computed(flights: Stream) -> None:
    assert flights.key_by("origin", "dest").node.keys == ("origin", "dest")
    assert flights.key_by(col("origin")).schema == flights.schema
    computed = flights.key_by("origin", hour=col("scheduled").dt.hour())
    assert computed.node.keys == ("origin", "hour")
    assert computed.schema.names[-1] == "hour"


def test_keys_and_time_follow_their_columns(flights: Stream) -> None:
    keyed = flights.key_by("origin")
    assert keyed.rename({"origin": "from"}).node.keys == ("from",)
    assert keyed.drop("origin").node.keys == ()
    assert keyed.drop("scheduled").node.time_column is None
    assert keyed.with_columns(origin=col("origin").str.lower()).node.keys == ()


def test_windows_give_keys_bounds_and_results(flights: Stream) -> None:
    hours = (
        flights.key_by("origin")
        .window(HOUR)
        .agg(
            rows=ms.count(),
            known=ms.count("dep_delay"),
            total=ms.sum("year"),
            mean=ms.mean(col("dep_delay") / 60),
            first=ms.min("scheduled"),
            worst=ms.max("dep_delay"),
        )
    )
    moment = pa.timestamp("us", "UTC")
    assert hours.schema == pa.schema(
        {
            "origin": pa.string(),
            "window_start": moment,
            "window_end": moment,
            "rows": pa.int64(),
            "known": pa.int64(),
            "total": pa.int64(),
            "mean": pa.float64(),
            "first": moment,
            "worst": pa.float64(),
        }
    )
    assert (hours.node.keys, hours.node.time_column) == (("origin",), "window_start")
    assert hours.late().schema == flights.schema
    assert hours.named("hours").late().schema == flights.schema


def test_a_join_adds_the_tables_columns(flights: Stream, airlines: Table) -> None:
    joined = flights.join(airlines.drop("year"), on="carrier")
    assert joined.schema.names == [*flights.schema.names, "name"]
    renamed = flights.join(airlines.rename({"year": "founded"}), on=["carrier"], how="left")
    assert renamed.schema.names == [*flights.schema.names, "name", "founded"]


def test_a_join_may_name_its_sides_apart(log: KnownTopics, flights: Stream) -> None:
    planes = table("planes", key=["dest", "year"], log=log)
    joined = flights.rename({"dest": "to"}).join(
        planes, left_on=["to", "year"], right_on=["dest", "year"]
    )
    assert joined.schema.names[-1] == "changed"
    assert isinstance(joined.node, nodes.TableJoin)
    assert joined.node.stream_keys == ("year", "to")
    assert joined.node.table_keys == ("year", "dest")


def test_a_join_may_be_by_any_columns_of_the_table(log: KnownTopics, flights: Stream) -> None:
    planes = table("planes", log=log).rename({"year": "built"})
    joined = flights.join(planes, on="dest")
    assert joined.schema.names == [*flights.schema.names, "built", "changed"]
    assert joined.schema.field("built").nullable
    assert isinstance(joined.node, nodes.TableJoin)
    assert (joined.node.table_keys, joined.node.many_matches) == (("dest",), True)
    named = flights.drop("carrier").join(
        table("airlines", log=log), left_on=["origin", "year"], right_on=["name", "year"]
    )
    assert isinstance(named.node, nodes.TableJoin)
    assert named.schema.names[-2:] == ["year", "carrier"]
    assert (named.node.stream_keys, named.node.many_matches) == (("origin", "year"), True)
    more = flights.rename({"origin": "name"}).join(
        table("airlines", log=log), on=["name", "carrier", "year"]
    )
    assert isinstance(more.node, nodes.TableJoin)
    assert not more.node.many_matches, "its key is among them"


def test_a_join_is_not_by_lists(log: KnownTopics) -> None:
    tags = pa.schema({"id": pa.int64(), "tags": pa.list_(pa.string())})
    log.add("tagged", tags)
    log.add("tags", tags, key=("id",), table=True)
    with pytest.raises(ExpressionTypeError, match="rows cannot be joined by 'tags', which is list"):
        stream("tagged", log=log).select("tags").join(table("tags", log=log), on="tags")


def test_a_union_puts_columns_in_one_order(flights: Stream) -> None:
    one = flights.select("scheduled", "origin")
    other = flights.select("origin", "scheduled")
    both = one.union(other, one)
    assert both.schema.names == ["scheduled", "origin"]
    assert both.node.time_column == "scheduled"
    assert [each.schema.names for each in both.node.inputs] == [["scheduled", "origin"]] * 3


def test_a_sink_is_keyed_as_its_stream(flights: Stream) -> None:
    sink = flights.key_by("origin").window(HOUR).agg(rows=ms.count()).to("hours", partitions=2)
    assert (sink.node.key_columns, sink.node.event_time, sink.node.partitions) == (
        ("origin",),
        "window_start",
        2,
    )
    assert repr(sink) == "sink to 'hours'"
    assert flights.to("copy").node.key_columns == ()


def test_a_name_goes_to_the_last_operator(flights: Stream) -> None:
    named = flights.filter(col("dep_delay") > 15).named("late-only")
    assert named.node.name == "late-only"
    assert named.to("x").named("end").node.name == "end"


# Through `Any`: a type checker would find some of them before they are made.
MISTAKES: dict[str, tuple[Callable[[Any, Any], object], type[UserError], str]] = {
    "unknown topic": (
        lambda flights, _: stream("flihgts", log=flights.log),
        UnknownTopicError,
        "no topic 'flihgts' in the log 'data'; did you mean 'flights'?",
    ),
    "unknown column": (
        lambda flights, _: flights.filter(col("dep_dely") > 1),
        UnknownColumnError,
        "no column 'dep_dely'; did you mean 'dep_delay'?",
    ),
    "name for a condition": (
        lambda flights, _: flights.filter("late"),
        ExpressionTypeError,
        "expected an expression such as col('late') > 0; got 'late'",
    ),
    "number for a condition": (
        lambda flights, _: flights.filter(col("dep_delay")),
        ExpressionTypeError,
        'a filter needs a condition (bool); got col("dep_delay") (double)',
    ),
    "branch without condition": (
        lambda flights, _: flights.branch(col("dep_delay")),
        ExpressionTypeError,
        "a branch needs a condition",
    ),
    "time column that is none": (
        lambda flights, _: stream("flights", time="year", log=flights.log),
        ExpressionTypeError,
        "the time column of 'flights' must be a timestamp; 'year' is int64",
    ),
    "time column that is not there": (
        lambda flights, _: stream("flights", time="when", log=flights.log),
        UnknownColumnError,
        "no column 'when'",
    ),
    "lateness": (
        lambda flights, _: stream("flights", lateness="late", log=flights.log),
        OptionError,
        "lateness='late' is no duration",
    ),
    "window without time": (
        lambda flights, _: stream("untimed", log=flights.log).window(HOUR),
        PlanError,
        "a window needs event time, and these rows have none",
    ),
    "window that lost its time": (
        lambda flights, _: flights.drop("scheduled").window(HOUR),
        PlanError,
        "a window needs event time",
    ),
    "window as text": (
        lambda flights, _: flights.window("1h"),
        PlanError,
        "window takes e.g. ms.tumbling(\"1h\"); got '1h'",
    ),
    "emit that is no word": (
        lambda flights, _: flights.window(HOUR, emit="10s"),
        PlanError,
        'emit is "final", "changes" or e.g. ms.every("10s"); got \'10s\'',
    ),
    "late rows of a key for ever": (
        lambda flights, _: flights.dedup("origin", within="ever").late(),
        PlanError,
        "no row is late here, as no key is forgotten; with within= those are",
    ),
    "windows of no rows": (
        lambda *_: ms.counting(10, 0),
        OptionError,
        "at least 1 and at most as many as are in one; got 10 rows, and one every 0",
    ),
    "windows of a time of rows": (
        lambda flights, _: ms.counting(flights.schema.names[0]),
        OptionError,
        "size= is a number of rows; got '",
    ),
    "changes of windows that rows make": (
        lambda flights, _: flights.window(ms.sliding("1h"), emit="changes"),
        PlanError,
        "are given out once, when the watermark is beyond their last row",
    ),
    "result of a row called like its column": (
        lambda flights, _: flights.window(ms.sliding("1h")).agg(origin=ms.count()),
        PlanError,
        "two columns would be called 'origin'",
    ),
    "interval of nothing": (
        lambda *_: ms.every("0s"),
        OptionError,
        "an interval must be more than 0; got '0s'",
    ),
    "processing time called like a column": (
        lambda flights, _: stream("flights", ms.processing_time("year"), log=flights.log),
        PlanError,
        "two columns would be called 'year'",
    ),
    "processing time with lateness": (
        lambda flights, _: stream("flights", ms.processing_time(), "5s", log=flights.log),
        PlanError,
        "lateness and idle_timeout are for event time",
    ),
    "window of no size": (
        lambda *_: ms.tumbling("0s"),
        OptionError,
        "a window's size must be more than 0",
    ),
    "sum of text": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.sum("origin")),
        ExpressionTypeError,
        "sum needs a number; 'x' is over string",
    ),
    "median of text": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.quantile("origin", 0.5)),
        ExpressionTypeError,
        "quantile needs a number; 'x' is over string",
    ),
    "least of structs": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.min(ms.struct(o=col("origin")))),
        ExpressionTypeError,
        "min needs values that have an order; 'x' is over struct<",
    ),
    "set of structs": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.collect_set(ms.struct(o=col("origin")))),
        ExpressionTypeError,
        "collect_set needs values that can be a key; 'x' is over struct<",
    ),
    "last by structs": (
        lambda flights, _: flights.window(HOUR).agg(
            x=ms.arg_max("year", ms.struct(o=col("origin")))
        ),
        ExpressionTypeError,
        "arg_max needs values that have an order; 'x' goes by struct<",
    ),
    "quantile beyond 1": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.quantile("year", 50)),
        OptionError,
        "a quantile lies between 0 and 1; got q=50",
    ),
    "quantile too exact": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.quantile("year", 0.5, accuracy=0)),
        OptionError,
        "an accuracy lies between 1e-6 and 1; got 0",
    ),
    "top nothing": (
        lambda flights, _: flights.window(HOUR).agg(x=ms.top_k("year", 0)),
        OptionError,
        "top_k gives from 1 to 1,000,000 values; got k=0",
    ),
    "no aggregate": (
        lambda flights, _: flights.window(HOUR).agg(x=col("year")),
        PlanError,
        "agg takes aggregates such as ms.count()",
    ),
    "empty agg": (
        lambda flights, _: flights.window(HOUR).agg(),
        PlanError,
        "agg computes nothing",
    ),
    "result called like a key": (
        lambda flights, _: flights.key_by("origin").window(HOUR).agg(origin=ms.count()),
        PlanError,
        "two columns would be called 'origin'",
    ),
    "ambiguous join": (
        lambda flights, airlines: flights.join(airlines, on="carrier"),
        PlanError,
        "both sides of the join have 'year'; rename on the table, "
        'e.g. table.rename({"year": "airlines_year"})',
    ),
    "ambiguous key": (
        lambda flights, _: flights.join(table("planes", log=flights.log), on="dest"),
        PlanError,
        "both sides of the join have 'year'; rename on the table, "
        'e.g. table.rename({"year": "planes_year"}), or join it, too',
    ),
    "join by a column that the table lacks": (
        lambda flights, airlines: flights.join(airlines, on="origin"),
        UnknownColumnError,
        "no column 'origin' of table 'airlines'; there are: 'carrier', 'name', 'year'",
    ),
    "join by a column that the stream lacks": (
        lambda flights, airlines: flights.join(airlines, on="name"),
        UnknownColumnError,
        "no column 'name'; ",
    ),
    "join by nothing": (
        lambda flights, airlines: flights.join(airlines),
        PlanError,
        "a join needs columns, each of the table's once and one of the stream's for it; "
        "got nothing and nothing of table 'airlines': write e.g. on=\"carrier\", or left_on=",
    ),
    "join by too many of one side": (
        lambda flights, airlines: flights.join(
            airlines, left_on=["carrier", "origin"], right_on="carrier"
        ),
        PlanError,
        "got carrier, origin and carrier of table 'airlines'",
    ),
    "join by one column twice": (
        lambda flights, airlines: flights.join(
            airlines, left_on=["origin", "dest"], right_on=["name", "name"]
        ),
        PlanError,
        "got origin, dest and name, name of table 'airlines'",
    ),
    "join of other types": (
        lambda flights, airlines: flights.join(airlines, left_on="year", right_on="carrier"),
        ExpressionTypeError,
        "cannot join 'year' (int64) with 'carrier' of table 'airlines' (string)",
    ),
    "join of a stream": (
        lambda flights, _: flights.join(flights, on="carrier"),
        PlanError,
        "join takes a table, ms.table(…); got Stream",
    ),
    "kind of join": (
        lambda flights, airlines: flights.join(airlines, on="carrier", how="outer"),
        PlanError,
        'how is "inner" or "left"',
    ),
    "union of other columns": (
        lambda flights, _: flights.union(flights.drop("year")),
        ExpressionTypeError,
        "'year' is int64 in the first and missing in the other",
    ),
    "union of other types": (
        lambda flights, _: flights.union(flights.with_columns(year=col("year").cast("string"))),
        ExpressionTypeError,
        "'year' is int64 in the first and string in the other",
    ),
    "column twice": (
        lambda flights, _: flights.select("year", col("year") + 1),
        PlanError,
        "two columns would be called 'year'",
    ),
    "no column": (lambda flights, _: flights.select(), PlanError, "no column would be left"),
    "column of nothing": (
        lambda flights, _: flights.with_columns(x=None),
        ExpressionTypeError,
        "'x' is None in every row; give a type",
    ),
    "column of the platform's": (
        lambda flights, _: flights.rename({"year": "_weight"}),
        PlanError,
        "a column cannot be called '_weight'",
    ),
    "a number for a column": (
        lambda flights, _: flights.select(5),
        ExpressionTypeError,
        "expected a column's name or an expression; got 5",
    ),
    "dropping what is not there": (
        lambda flights, _: flights.drop("yearr"),
        UnknownColumnError,
        "did you mean 'year'",
    ),
    "no key": (lambda flights, _: flights.key_by(), PlanError, "key_by needs a column"),
    "topic with other columns": (
        lambda flights, _: flights.select("carrier").to("airlines"),
        SchemaMismatchError,
        "topic 'airlines' exists with other columns: 'name' is missing here and string there",
    ),
    "no partitions": (
        lambda flights, _: flights.to("x", partitions=0),
        PlanError,
        "at least 1 partition",
    ),
    "table that is a stream": (
        lambda flights, _: table("flights", log=flights.log),
        PlanError,
        "topic 'flights' is not a table; create it with table=True",
    ),
    "table by another key": (
        lambda flights, _: table("airlines", key="name", log=flights.log),
        PlanError,
        "the key of table 'airlines' is carrier; got key='name'",
    ),
    "key taken off a table": (
        lambda _, airlines: airlines.drop("carrier"),
        PlanError,
        "'carrier' is a key of table 'airlines' and stays",
    ),
    "name with a slash": (
        lambda flights, _: flights.named("a/b"),
        OptionError,
        "'a/b' cannot be a name",
    ),
    "counters of what never ran": (
        lambda flights, _: flights.explain(counters=True),
        PlanError,
        "there are no counters",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_at_the_users_line(
    mistake: str, flights: Stream, airlines: Table
) -> None:
    make, kind, text = MISTAKES[mistake]
    with pytest.raises(kind) as raised:
        make(flights, airlines)
    assert str(raised.value).startswith(f"{__file__}:")
    assert text in str(raised.value)


def test_streams_of_two_logs_are_not_one_job(flights: Stream, log: KnownTopics) -> None:
    other = KnownTopics("elsewhere", log)
    with pytest.raises(PlanError, match="of 'data' and 'elsewhere'"):
        flights.union(stream("flights", log=other))
