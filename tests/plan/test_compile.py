from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.dsl.sink import Sink
from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.dsl.table import Table, table
from millstream.dsl.windowed import TimedResult
from millstream.operators.fused import FusedConfig
from millstream.operators.table_join import TableJoinConfig
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.plan.compile import CompiledJob, compile_job, compile_plan
from millstream.runtime.graph import (
    Edge,
    ExchangeNode,
    JobGraph,
    OperatorNode,
    SinkNode,
    SourceNode,
)
from tests.dsl.known_topics import KnownTopics

HOUR = ms.tumbling("1h")


def compiled(parallelism: int, *sinks: Sink) -> CompiledJob:
    job = compile_plan([each.node for each in sinks], "job", parallelism)
    check(job.graph)
    return job


def check(graph: JobGraph) -> None:
    """What the runtime relies on: unique names, inputs of the same stage and before their use."""
    names: list[str] = []
    for stage in graph.stages:
        names += [each.name for each in stage.sources]
        known = {each.name for each in stage.sources} | {each.name for each in stage.receives}
        for operator in stage.operators:
            assert all(edge.node in known for edge in operator.inputs), operator.name
            known.add(operator.name)
            names.append(operator.name)
        ends: list[ExchangeNode | SinkNode] = [*stage.sends, *stage.sinks]
        for end in ends:
            assert end.input.node in known, end.name
            names.append(end.name)
    assert len(names) == len(set(names))
    sent = [each for stage in graph.stages for each in stage.sends]
    received = [each for stage in graph.stages for each in stage.receives]
    assert sorted(each.name for each in sent) == sorted(each.name for each in received)


def operators(job: CompiledJob) -> dict[str, OperatorNode]:
    return {each.name: each for stage in job.graph.stages for each in stage.operators}


def sources(job: CompiledJob) -> dict[str, SourceNode]:
    return {each.name: each for stage in job.graph.stages for each in stage.sources}


@pytest.fixture
def hours(flights: Stream, airlines: Table) -> TimedResult:
    return (
        flights.filter(col("dep_delay") > 15)
        .join(airlines.drop("year"), on="carrier")
        .key_by("origin")
        .window(HOUR)
        .agg(flights=ms.count(), mean_delay=ms.mean("dep_delay"))
    )


def test_one_worker_has_one_stage_and_no_exchange(hours: TimedResult) -> None:
    job = compiled(1, hours.to("hours"))
    (stage,) = job.graph.stages
    assert [each.name for each in stage.operators] == ["filter", "join-airlines", "window-origin"]
    assert job.notes["window-origin"] == ("no exchange: one worker has all rows",)


def test_a_new_key_ends_a_stage(hours: TimedResult) -> None:
    job = compiled(2, hours.to("hours"))
    first, second = job.graph.stages
    assert [each.key_columns for each in first.sends] == [("origin",)]
    assert first.sends == second.receives
    assert [each.name for each in second.operators] == ["window-origin"]
    assert [each.topic for each in second.sinks] == ["hours"]
    assert job.notes["window-origin"][0].startswith("exchange by origin: 'flights' is not written")


def test_a_topic_written_by_key_needs_no_exchange(log: KnownTopics) -> None:
    hours = stream("keyed", log=log).key_by("origin").window(HOUR).agg(n=ms.count()).to("x")
    assert len(compiled(2, hours).graph.stages) == 1
    assert len(compiled(4, hours).graph.stages) == 1
    assert len(compiled(3, hours).graph.stages) == 2


def test_a_second_window_by_the_same_key_needs_none(hours: TimedResult) -> None:
    days = hours.window(ms.tumbling("1d")).agg(n=ms.sum("flights")).to("days")
    job = compiled(2, days)
    assert len(job.graph.stages) == 2
    assert job.notes["window-origin-2"] == ("no exchange: rows lie by origin already",)


def test_what_two_sinks_share_runs_once(hours: TimedResult, flights: Stream) -> None:
    cancelled = flights.filter(col("dep_delay").is_null())
    job = compiled(2, hours.to("hours"), hours.late().to("late"), cancelled.to("cancelled"))
    assert list(sources(job)) == ["source-flights", "table-airlines"]
    windows = [each for each in operators(job).values() if each.config.timed]
    assert [each.name for each in windows] == ["combine-origin", "window-origin"]
    sinks = {each.topic: each.input for stage in job.graph.stages for each in stage.sinks}
    # Late rows are sorted out where rows are combined, before they cross.
    assert (sinks["hours"], sinks["late"]) == (Edge("window-origin", 0), Edge("combine-origin", 1))


def test_rows_are_combined_before_they_cross(flights: Stream) -> None:
    hours = flights.key_by("origin").window(HOUR).agg(n=ms.count("year"))
    job = compiled(2, hours.to("hours"))
    combine, window = operators(job).values()
    (exchange,) = job.graph.stages[0].sends
    assert exchange.input == Edge(combine.name)
    assert exchange.schema == combine.config.output_schemas[0]
    assert exchange.schema.names[:2] == ["origin", "window_start"]
    assert (combine.restores_from, window.inputs) == (window.name, (Edge(exchange.name),))
    assert list(operators(compiled(1, hours.to("hours")))) == ["window-origin"]


def test_rows_cross_as_they_are_where_a_partition_may_be_idle(log: KnownTopics) -> None:
    flights = stream("flights", time="scheduled", idle_timeout="5s", log=log)
    keyed = flights.key_by("origin")
    one = keyed.window(HOUR).agg(n=ms.count("year"))
    other = keyed.window(ms.tumbling("1d")).agg(n=ms.count("year"))
    job = compiled(2, one.to("a"), other.to("b"))
    assert [each.name for each in job.graph.stages[0].sends] == ["exchange-origin"]
    assert list(operators(job)) == ["window-origin", "window-origin-2"]


def test_sources_read_what_is_needed_and_stamp_what_is_timed(hours: TimedResult) -> None:
    read = sources(compiled(1, hours.to("hours")))
    flights = read["source-flights"]
    assert flights.schema.names == ["scheduled", "carrier", "origin", "dep_delay"]
    assert (flights.time_column, flights.lateness_us, flights.stamped) == (
        "scheduled",
        86_400_000_000,
        True,
    )
    assert (read["table-airlines"].role, read["table-airlines"].stamped) == ("table", False)
    assert flights.location.startswith(__file__.rsplit("/", 1)[0])


def test_without_a_timed_operator_nothing_is_stamped(flights: Stream) -> None:
    assert not sources(compiled(1, flights.to("copy")))["source-flights"].stamped


def test_a_sink_has_keys_time_and_the_largest_partition_count(hours: TimedResult) -> None:
    (stage,) = compiled(1, hours.to("hours"), hours.late().to("late", partitions=1)).graph.stages
    first, late = stage.sinks
    assert (first.key_columns, first.time_column, first.partitions) == (
        ("origin",),
        "window_start",
        4,
    )
    assert (late.key_columns, late.time_column, late.partitions) == (("origin",), "scheduled", 1)


def test_the_config_of_an_operator_fits_its_plan(hours: TimedResult) -> None:
    job = compiled(1, hours.to("hours"))
    config = operators(job)["window-origin"].config
    assert isinstance(config, WindowAggregateConfig)
    results, late = config.output_schemas
    assert results.names == hours.schema.names
    assert results.types == hours.schema.types
    assert late.names == config.input_schema.names
    for operator in operators(job).values():
        assert pickle.loads(pickle.dumps(operator.config)) == operator.config


def test_a_renamed_table_is_renamed_before_the_join(flights: Stream, airlines: Table) -> None:
    joined = flights.join(airlines.rename({"year": "founded"}), on="carrier").to("x")
    found = operators(compiled(1, joined))
    assert [edge.node for edge in found["join-airlines"].inputs] == [
        "source-flights",
        "rename-airlines",
    ]
    config = found["rename-airlines"].config
    assert isinstance(config, FusedConfig)
    assert [name for name, _ in config.outputs] == ["carrier", "name", "founded", "_op"]


def test_a_table_is_read_in_each_stage_that_joins_it(log: KnownTopics, hours: TimedResult) -> None:
    airlines = table("airlines", log=log)
    flights = stream("flights", log=log).drop("year")
    first = flights.join(airlines.drop("year"), on="carrier").to("a")
    counted = flights.key_by("carrier").window(HOUR).agg(n=ms.count()).join(airlines, on="carrier")
    job = compiled(2, first, counted.to("b"))
    assert [[each.topic for each in stage.sources] for stage in job.graph.stages] == [
        ["flights", "airlines"],
        ["airlines"],
    ]
    assert "not deterministic: joins by arrival" in job.notes["join-airlines"]


def test_a_join_knows_the_tables_key_beside_its_columns(log: KnownTopics, flights: Stream) -> None:
    planes = table("planes", log=log).rename({"year": "built"})
    job = compiled(1, flights.join(planes, on="dest").select("origin", "changed").to("x"))
    config = operators(job)["join-planes"].config
    assert isinstance(config, TableJoinConfig)
    assert (config.table_keys, config.unique_key) == (("dest",), ("built", "dest"))
    assert config.table_columns == ("changed",)
    assert config.output_schemas[0].names == ["scheduled", "origin", "dest", "changed"]
    assert pickle.loads(pickle.dumps(config)) == config
    assert job.notes["join-planes"] == (
        "many matches: a row goes out once with each (the table's key is built, dest)",
        "takes append and upsert, gives append",
    )


def test_a_union_over_stages_meets_in_the_later_one(flights: Stream) -> None:
    counted = flights.key_by("origin").window(HOUR).agg(n=ms.count()).select("origin", "n")
    plain = flights.select("origin", n=col("year"))
    job = compiled(2, plain.union(counted).to("x"))
    assert [each.name for each in job.graph.stages[1].operators][-1] == "union"
    assert [each.name for each in job.graph.stages[0].sends] == [
        "exchange-origin",
        "exchange-origin-n",
    ]


def test_a_window_over_all_rows_goes_to_one_worker(flights: Stream) -> None:
    job = compiled(2, flights.window(HOUR).agg(n=ms.count()).to("x"))
    assert job.notes["window"] == (
        "exchange to one worker: the window is over all rows, without a key",
    )
    assert [each.key_columns for each in job.graph.stages[0].sends] == [()]


def test_names_are_the_same_for_every_parallelism(hours: TimedResult) -> None:
    stateful = [
        [
            each.name
            for each in operators(compiled(count, hours.to("x"))).values()
            if each.restores_from is None
        ]
        for count in (1, 2, 3)
    ]
    assert stateful[0] == stateful[1] == stateful[2]


def test_given_names_are_kept_and_made_unique(flights: Stream) -> None:
    same = [flights.filter(col("year") > each).named("mine").to(f"t{each}") for each in (1, 2)]
    assert list(operators(compiled(1, *same))) == ["mine", "mine-2"]


def test_a_graph_can_be_sent_to_workers(hours: TimedResult) -> None:
    graph = compile_job([hours.to("hours").node], "job", 2)
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert isinstance(graph.stages[0].sources[0].schema, pa.Schema)
