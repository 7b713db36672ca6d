"""The beginning of an attempt: a new epoch, the newest checkpoint, what each worker starts from.

epoch taken ─▶ manifest read, files verified ─▶ ends captured ─▶ plans for the workers
(older attempts are fenced from here on)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from millstream.errors import CheckpointError
from millstream.log import Log, Topic
from millstream.log.transactions import Writer
from millstream.runtime.graph import JobGraph, SinkNode, SourceNode
from millstream.runtime.manifest import Manifest, SourceState, decode_manifest
from millstream.runtime.options import RunOptions
from millstream.runtime.seams import following_partitions, is_at_seam
from millstream.runtime.snapshots import epoch_of, state_directory, verify_file

Compiler = Callable[[int, Mapping[str, int]], JobGraph]
"""Compiles a job for a parallelism, and for how many partitions are read of topics, by name."""

NOBODY = Writer("", 0, 0)
"""Who writes in a run that writes nothing."""


def owner_of(job: str) -> str:
    """Return the owner under which a job's transactions and checkpoints are known."""
    return f"job {job}"


def sources_of(graph: JobGraph) -> dict[str, SourceNode]:
    """Return all sources of a job by name."""
    return {each.name: each for stage in graph.stages for each in stage.sources}


def sinks_of(graph: JobGraph) -> list[SinkNode]:
    """Return all sinks of a job."""
    return [each for stage in graph.stages for each in stage.sinks]


def create_topics(graph: JobGraph, log: Log) -> None:
    """Create the topics that sinks write to, where they are missing."""
    for sink in sinks_of(graph):
        if sink.kind == "log":
            log.create_topic(
                sink.topic,
                sink.schema,
                partitions=sink.partitions,
                key=sink.key_columns,
                time=sink.time_column,
                table=sink.upsert,
                if_not_exists=True,
            )


def read_manifest(log: Log, job: str) -> Manifest | None:
    """Return the newest checkpoint of a job, or `None`."""
    content = log.transactions.newest_manifest(owner_of(job))
    return None if content is None else decode_manifest(content, job)


def first_manifest(graph: JobGraph, run: str, epoch: int, checkpoint: int) -> Manifest:
    """Return the manifest of a job that has not begun."""
    return Manifest(
        job=graph.name,
        run=run,
        epoch=epoch,
        checkpoint=checkpoint,
        parallelism=graph.parallelism,
        finished=False,
        sources={},
        operators={},
    )


def check_fits(manifest: Manifest, graph: JobGraph, log: Log) -> None:
    """Check that a job can go on from a checkpoint, all of whose files are whole.

    Raises
    ------
    CheckpointError
        When the job no longer has an operator whose state is there, a topic is another one, or
        a file is missing or damaged.
    """
    known = {each.name for stage in graph.stages for each in stage.operators}
    lost = sorted(set(manifest.operators) - known)
    if lost:
        message = (
            f"job {graph.name!r} has changed: its checkpoint {manifest.checkpoint} holds state of "
            f"{', '.join(map(repr, lost))}, which it no longer has; give operators names with "
            '.named("…") that stay, or start over with --fresh'
        )
        raise CheckpointError(message)
    for name, node in sources_of(graph).items():
        state = manifest.sources.get(name)
        if state is not None:
            _check_topic(name, node, state, graph, log)
    for operator, files in manifest.operators.items():
        for file in files:
            verify_file(log.storage, log.path, operator, file)


def _check_topic(
    name: str, node: SourceNode, state: SourceState, graph: JobGraph, log: Log
) -> None:
    """Check that a source's topic is the same one, and still has the rows up to its position."""
    topic = log.topic(node.topic)
    if state.topic_id != topic.config.id:
        message = (
            f"source {name!r} of job {graph.name!r} stands in topic {state.topic!r} with id "
            f"{state.topic_id}, but {node.topic!r} now has id {topic.config.id}: it was deleted "
            "and created anew, or another one is read; start over with --fresh"
        )
        raise CheckpointError(message)
    if state.generation not in topic.config.generations:
        message = (
            f"source {name!r} of job {graph.name!r} stands in generation {state.generation} of "
            f"topic {state.topic!r}, whose rows were removed since; start over with --fresh"
        )
        raise CheckpointError(message)
    offsets = [0] * topic.config.partitions_of(state.generation)
    for index, each in state.partitions.items():
        offsets[int(index)] = each.offset
    _check_there(name, node, topic, offsets, state.generation)


def _check_there(
    name: str, node: SourceNode, topic: Topic, offsets: Sequence[int], generation: int
) -> None:
    """Check that no partition ends before its offset: rows that were there would be missed.

    Where an end lies beyond, the run would wait for it for ever.
    """
    for offset, partition in zip(offsets, topic.partitions_of(generation), strict=True):
        if offset > (end := partition.durable_end):
            message = (
                f"{node.location}: source {name!r} knows {partition.name} up to offset "
                f"{offset}, and now it ends at {end}; a power cut took rows back (of a topic of "
                "durability 'os'), or files were removed; start over with --fresh"
            )
            raise CheckpointError(message)


def captured(
    manifest: Manifest, graph: JobGraph, log: Log, options: RunOptions
) -> dict[str, SourceState]:
    """Return the sources' states with the ends and bounds of this run.

    A bounded run that did not finish keeps the ends that it captured first, so that its result
    does not depend on when it died.

    Raises
    ------
    CheckpointError
        When a topic no longer reaches what was captured.
    """
    sources: dict[str, SourceState] = {}
    bounded = options.until == "end"
    for name, node in sources_of(graph).items():
        topic = log.topic(node.topic)
        state = manifest.sources.get(name)
        known = state is not None and not manifest.finished
        present = topic.config.generation
        if state is None:
            oldest = topic.config.generations[0]
            state = SourceState(node.topic, topic.config.id, None, None, {}, oldest)
        ends, bounds = state.ends, state.bounds
        ends_in, bounds_in = state.ends_in, state.bounds_in
        if not bounded:
            ends = None
        elif ends is None or not known:
            ends, ends_in = tuple(topic.stable_ends()), present
        if node.role == "table" and (bounds is None or bounded):
            bounds, bounds_in = (ends, ends_in)
            if bounds is None:
                bounds, bounds_in = tuple(topic.stable_ends()), present
        for known_ends, known_in in ((ends, ends_in), (bounds, bounds_in)):
            if known_ends is not None and known_in in topic.config.generations:
                _check_there(name, node, topic, known_ends, known_in)
        state = msgspec.structs.replace(
            state, ends=ends, ends_in=ends_in, bounds=bounds, bounds_in=bounds_in
        )
        sources[name] = _past_seams(state, topic, present if ends is None else ends_in)
    return sources


def _past_seams(state: SourceState, topic: Topic, last: int) -> SourceState:
    """Return a source at a seam as it stands in the next generation, up to the last one."""
    while state.generation < last:
        partitions = {int(index): each for index, each in state.partitions.items()}
        if not is_at_seam(topic, state.generation, partitions):
            break
        begun = following_partitions(topic, state.generation, partitions)
        state = msgspec.structs.replace(
            state,
            generation=topic.config.following(state.generation),
            partitions={str(index): each for index, each in begun.items()},
        )
    return state


def remove_orphans(log: Log, job: str, manifest: Manifest, epoch: int) -> None:
    """Remove state files that older attempts left and no checkpoint needs."""
    needed = manifest.paths()
    directory = state_directory(job)
    for name in log.storage.list_directory(f"{log.path}/{directory}"):
        written = epoch_of(name)
        if written is not None and written < epoch and f"{directory}/{name}" not in needed:
            log.storage.remove(f"{log.path}/{directory}/{name}")
