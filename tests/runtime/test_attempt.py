"""The beginning of an attempt: what it may go on from, what it captures, what it removes."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest

import millstream as ms
from millstream.errors import CheckpointError
from millstream.log import Log
from millstream.runtime.attempt import (
    captured,
    check_fits,
    create_topics,
    first_manifest,
    read_manifest,
    remove_orphans,
    sinks_of,
    sources_of,
)
from millstream.runtime.graph import JobGraph
from millstream.runtime.manifest import Manifest, PartitionState, SourceState, StateFile
from millstream.runtime.options import RunOptions
from millstream.runtime.snapshots import state_path
from tests.runtime.kit import (
    EVENTS,
    Bench,
    Played,
    compiler,
    event_log,
    events,
    put,
    put_names,
)

BOUNDED, UNBOUNDED = RunOptions(until="end"), RunOptions()


def graph_of(log: Log, parallelism: int = 1) -> JobGraph:
    """A job with a window, a table and a sink."""
    stream = ms.stream("events", log=log).join(ms.table("names", key="key", log=log), on="key")
    counted = stream.key_by("key").window(ms.tumbling("10s")).agg(n=ms.count())
    return compiler([counted.to("out")])(parallelism, {})


def job_log(bench: Bench) -> Log:
    log = event_log(bench, partitions=2)
    put(log, "events", events(1, 2), 0)
    put(log, "events", events(3), 1)
    put_names(log, "names", a="A", b="B")
    return log


def manifest_of(log: Log, graph: JobGraph) -> Manifest:
    manifest = first_manifest(graph, "job-1", 1, 1)
    return msgspec.structs.replace(manifest, sources=captured(manifest, graph, log, UNBOUNDED))


def test_missing_topics_of_sinks_are_created_and_present_ones_kept() -> None:
    log = job_log(Bench())
    graph = graph_of(log)
    create_topics(graph, log)
    made = log.topic("out").config
    assert (made.key, made.time, made.partitions) == (("key",), "window_start", 2)
    create_topics(graph, log)
    assert log.topic("out").config == made
    assert [each.topic for each in sinks_of(graph)] == ["out"]
    assert sorted(sources_of(graph)) == ["source-events", "table-names"]


def test_a_job_that_never_ran_has_no_manifest() -> None:
    log = job_log(Bench())
    assert read_manifest(log, "job") is None


class TestCaptured:
    def test_a_bounded_run_reads_to_the_ends_as_they_are(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        sources = captured(first_manifest(graph, "job-1", 1, 1), graph, log, BOUNDED)
        assert sources["source-events"].ends == (2, 1)
        assert sources["source-events"].bounds is None
        assert (sources["table-names"].ends, sources["table-names"].bounds) == ((2,), (2,))

    def test_an_unbounded_run_captures_the_bounds_of_tables_only_and_only_once(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        manifest = manifest_of(log, graph)
        put_names(log, "names", c="C")
        again = captured(manifest, graph, log, UNBOUNDED)
        for sources in (manifest.sources, again):
            assert sources["source-events"].ends is None
            assert sources["table-names"].bounds == (2,)

    def test_a_bounded_run_that_did_not_finish_keeps_its_ends(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        manifest = first_manifest(graph, "job-1", 1, 1)
        sources = captured(manifest, graph, log, BOUNDED)
        manifest = msgspec.structs.replace(manifest, sources=sources)
        put(log, "events", events(4), 0)
        assert captured(manifest, graph, log, BOUNDED) == sources
        finished = msgspec.structs.replace(manifest, finished=True)
        assert captured(finished, graph, log, BOUNDED)["source-events"].ends == (3, 1)
        assert captured(manifest, graph, log, UNBOUNDED)["source-events"].ends is None

    def test_undecided_rows_are_not_waited_for(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        with log.transaction("somebody") as transaction:
            transaction.append("events", events(9), partition=1)
            sources = captured(first_manifest(graph, "job-1", 1, 1), graph, log, BOUNDED)
        assert sources["source-events"].ends == (2, 1)

    @pytest.mark.parametrize("options", [BOUNDED, UNBOUNDED])
    def test_an_end_that_went_back_is_refused_instead_of_waited_for(
        self, options: RunOptions
    ) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        manifest = first_manifest(graph, "job-1", 1, 1)
        sources = captured(manifest, graph, log, options)
        name = "source-events" if options is BOUNDED else "table-names"
        far = (2, 5) if options is BOUNDED else (7,)
        sources[name] = msgspec.structs.replace(
            sources[name], **{"ends" if options is BOUNDED else "bounds": far}
        )
        manifest = msgspec.structs.replace(manifest, sources=sources)
        with pytest.raises(CheckpointError, match=f"{name}' knows .* up to offset {far[-1]},"):
            captured(manifest, graph, log, options)


class TestFits:
    def test_a_job_goes_on_from_its_own_checkpoint(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        check_fits(manifest_of(log, graph), graph, log)

    def test_an_operator_whose_state_is_gone_is_named(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        file = StateFile(0, 1, None, 0, 0, True, 1, {})
        manifest = msgspec.structs.replace(
            manifest_of(log, graph), operators={"window-key": (file,), "old": (file,)}
        )
        with pytest.raises(CheckpointError, match="holds state of 'old', which it no longer has"):
            check_fits(manifest, graph, log)

    def test_a_topic_that_was_created_anew_is_another_one(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        manifest = manifest_of(log, graph)
        log.delete_topic("events")
        log.create_topic("events", EVENTS, partitions=2, time="time")
        with pytest.raises(CheckpointError, match="it was deleted and created anew"):
            check_fits(manifest, graph, log)

    def test_a_position_beyond_the_end_is_refused(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        manifest = manifest_of(log, graph)
        source = msgspec.structs.replace(
            manifest.sources["source-events"], partitions={"1": PartitionState(4, 0)}
        )
        manifest = msgspec.structs.replace(
            manifest, sources={**manifest.sources, "source-events": source}
        )
        with pytest.raises(
            CheckpointError, match="knows events/1 up to offset 4, and now it ends at 1"
        ):
            check_fits(manifest, graph, log)

    def test_a_source_that_the_job_no_longer_has_is_let_go(self) -> None:
        log = job_log(Bench())
        graph = graph_of(log)
        manifest = manifest_of(log, graph)
        gone = SourceState("nothing", "77", None, None, {})
        more = msgspec.structs.replace(manifest, sources={**manifest.sources, "gone": gone})
        check_fits(more, graph, log)
        assert captured(more, graph, log, UNBOUNDED) == manifest.sources

    def test_a_missing_state_file_is_named_before_anything_is_restored(self) -> None:
        bench = Bench()
        log = job_log(bench)
        stream = ms.stream("events", log=log).key_by("key")
        sinks = [stream.window(ms.tumbling("1h")).agg(n=ms.count()).to("out")]
        running = Played(bench, sinks, until=None)
        running.settle()
        running.checkpoint()
        running.coordinator.close()
        epoch, checkpoint = running.coordinator.epoch, running.coordinator.checkpoint
        assert checkpoint is not None
        path = f"{log.path}/{state_path('job', epoch, checkpoint, 'window-key', 0)}"
        content = log.storage.read_file(path)
        log.storage.remove(path)
        for damaged in (None, content[:-1]):
            if damaged is not None:
                log.storage.write_file(path, damaged)
            with pytest.raises(CheckpointError, match="operator 'window-key' in checkpoint"):
                Played(bench, sinks)
            newest = read_manifest(bench.log(), "job")
            assert newest is not None
            assert (newest.epoch, newest.checkpoint) == (epoch, checkpoint)
        log.storage.write_file(path, content)
        assert Played(bench, sinks).coordinator.restored == checkpoint


def test_only_files_of_older_attempts_that_nobody_needs_are_removed() -> None:
    log = Bench().log()
    graph = JobGraph("job", 1, ())
    directory = f"{log.path}/jobs/job/state"
    log.storage.make_directory(directory)
    for epoch in (1, 2, 3, 4):
        log.storage.write_file(f"{log.path}/{state_path('job', epoch, 1, 'hours', 0)}", b"x")
    log.storage.write_file(f"{directory}/notes.txt", b"mine")
    needed = StateFile(0, 1, state_path("job", 2, 1, "hours", 0), 1, 1, True, 1, {})
    manifest = msgspec.structs.replace(
        first_manifest(graph, "job-1", 3, 1), operators={"hours": (needed,)}
    )
    remove_orphans(log, "job", manifest, 3)
    assert [each.partition("-")[0] for each in log.storage.list_directory(directory)] == [
        "00000002",
        "00000003",
        "00000004",
        "notes.txt",
    ]
    remove_orphans(log, "never ran", manifest, 3)


def test_a_topics_schema_may_have_more_than_the_job_reads() -> None:
    log = Bench().log()
    log.create_topic("events", EVENTS.append(pa.field("more", pa.int8())), time="time")
    stream = ms.stream("events", log=log).select("key")
    graph = compiler([stream.to("out")])(1, {})
    check_fits(manifest_of(log, graph), graph, log)
