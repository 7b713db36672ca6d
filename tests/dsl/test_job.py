"""What `run`, `collect` and `explain(counters=True)` hand to a host, and make of its answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.dsl.job import RUNS_KEPT
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.dsl.stream import Stream
from millstream.errors import OptionError, PlanError
from millstream.operators.operator import OperatorCounters
from millstream.runtime.attempt import Compiler
from millstream.runtime.graph import JobGraph
from millstream.runtime.options import RunOptions
from tests.dsl.known_topics import KnownTopics


class Host:
    """Stands in for the host: notes what it was given and answers with counters and rows."""

    def __init__(self) -> None:
        self.graphs: list[JobGraph] = []
        self.options: list[RunOptions] = []
        self.on_status: object = None

    def run_job(
        self,
        compile_for: Compiler,
        log: KnownTopics,
        options: RunOptions,
        on_status: object = None,
    ) -> SimpleNamespace:
        graph = compile_for(options.parallelism, {})
        self.graphs.append(graph)
        self.options.append(options)
        self.on_status = on_status
        names = [each.name for stage in graph.stages for each in stage.operators]
        counters = {name: OperatorCounters(rows_in=7, rows_out=3) for name in names}
        return SimpleNamespace(counters=counters, tables={"collected": pa.table({"n": [1]})})


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    local: Any = ModuleType("millstream.runtime.hosts.local")
    local.run_job = made.run_job
    monkeypatch.setitem(sys.modules, local.__name__, local)
    return made


def test_a_run_takes_its_options(host: Host, flights: Stream) -> None:
    ms.run(flights.to("copy"), name="mine", parallelism=3, until="end", checkpoint_interval="5s")
    (graph,), (options,) = host.graphs, host.options
    assert (graph.name, graph.parallelism) == ("mine", 3)
    assert (options.until, options.fresh, options.checkpoint_interval_us) == (
        "end",
        False,
        5_000_000,
    )


def test_without_options_there_is_a_worker_for_each_partition(host: Host, flights: Stream) -> None:
    ms.run([flights.to("copy"), flights.filter(col("year") > 1).to("some")])
    assert (host.options[0].parallelism, host.options[0].until) == (4, None)
    assert [each.topic for each in host.graphs[0].stages[0].sinks] == ["copy", "some"]


def test_a_job_is_called_like_its_script(
    host: Host, flights: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    main: Any = ModuleType("__main__")
    main.__file__ = "/home/you/late flights.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    ms.run(flights.to("copy"))
    del main.__file__
    ms.run(flights.to("copy"))
    assert [each.name for each in host.graphs] == ["late_flights", "notebook"]


def test_the_command_line_wins(host: Host, flights: Stream) -> None:
    overrides = RunOverrides(
        name="other", parallelism=2, until="end", fresh=True, on_status=lambda _: None
    )
    with override_run(overrides):
        result = ms.run(flights.to("copy"), name="mine", parallelism=4)
    assert (host.graphs[0].name, host.graphs[0].parallelism) == ("other", 2)
    assert (host.options[0].until, host.options[0].fresh) == ("end", True)
    assert host.on_status is overrides.on_status
    assert overrides.results == [result]


def test_rows_are_collected_by_a_fresh_bounded_run(host: Host, flights: Stream) -> None:
    assert flights.collect() == pa.table({"n": [1]})
    (sink,) = host.graphs[0].stages[0].sinks
    assert (sink.kind, sink.schema.names) == ("memory", flights.schema.names)
    assert (host.options[0].until, host.options[0].fresh) == ("end", True)


def test_counters_tell_of_the_job_that_ran(host: Host, flights: Stream) -> None:
    late = flights.filter(col("dep_delay") > 15)
    sink, other = late.to("late"), flights.select("year").to("years")
    ms.run(sink, other, name="mine", parallelism=1)
    text = str(sink.explain(counters=True))
    assert text.startswith("job mine, 1 worker")
    assert text.count("7 rows in, 3 out") == 2
    assert "counters" not in str(sink.explain())
    for _ in range(RUNS_KEPT):
        flights.collect()
    assert "7 rows in" not in str(flights.explain())
    with pytest.raises(PlanError, match="there are no counters"):
        sink.explain(counters=True)


def test_mistakes_are_said_at_the_users_line(host: Host, flights: Stream) -> None:
    sink, elsewhere = flights.to("copy"), KnownTopics("elsewhere")
    run: Any = ms.run  # a type checker would find some of the mistakes before they are made
    mistakes: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: run(flights), PlanError, "run takes sinks; got Stream; end the stream with"),
        (run, PlanError, "run needs a sink"),
        (lambda: run(sink, parallelism=0), OptionError, "parallelism is from 1 to 4096; got 0"),
        (lambda: run(sink, until="now"), OptionError, "until is \"end\" or left out; got 'now'"),
        (lambda: run(sink, name="a/b"), OptionError, "'a/b' cannot be a name"),
        (lambda: run(sink, log=elsewhere), PlanError, "of 'data' and 'elsewhere'"),
        (lambda: run(sink, checkpoint_interval="x"), OptionError, "checkpoint_interval='x'"),
    ]
    for make, kind, text in mistakes:
        with pytest.raises(kind) as raised:
            make()
        assert str(raised.value).startswith(f"{__file__}:")
        assert text in str(raised.value)
    assert host.graphs == []
