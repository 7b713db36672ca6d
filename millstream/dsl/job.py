"""Running what was built: `run`, and what `collect()` and `explain()` do."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from millstream.dsl.execution import (
    Host,
    PreparedRun,
    checked_host,
    run_prepared,
    submit_prepared,
)
from millstream.dsl.location import user_location
from millstream.dsl.memory import Memory, checked_memory
from millstream.dsl.placement import Placement, checked_placement
from millstream.dsl.run_context import RunOverrides, current_overrides
from millstream.dsl.sink import Sink, checked_name
from millstream.dsl.topics import same_log
from millstream.dsl.windows import duration_option
from millstream.errors import OptionError, PlanError
from millstream.operators.poison import OnError
from millstream.plan import nodes
from millstream.plan.walk import in_order, source_partitions
from millstream.runtime.graph import KEY_GROUPS

if TYPE_CHECKING:
    from millstream.log import Log
    from millstream.operators.operator import OperatorCounters
    from millstream.plan.explain import Explanation
    from millstream.runtime.handle import JobHandle
    from millstream.runtime.result import RunResult

COLLECTED = "collected"
"""The name of the one result of a job that `collect()` runs."""

RUNS_KEPT = 16
"""How many finished runs `explain(counters=True)` can still tell about."""


@dataclass(frozen=True)
class _FinishedRun:
    sinks: tuple[nodes.Sink, ...]
    name: str
    parallelism: int
    counters: Mapping[str, OperatorCounters]


_finished: deque[_FinishedRun] = deque(maxlen=RUNS_KEPT)


def run(
    *sinks: Sink | Sequence[Sink],
    name: str | None = None,
    parallelism: int | None = None,
    until: Literal["end"] | None = None,
    fresh: bool = False,
    log: Log | None = None,
    checkpoint_interval: str | timedelta = "1s",
    on: Literal["local", "ray"] | None = None,
    worker_cpus: float | None = None,
    start_timeout: str | timedelta = "60s",
    on_error: OnError = "fail",
    memory_budget: str | int | None = None,
    spill_directory: str | os.PathLike[str] | None = None,
) -> RunResult:
    """Run a job of one or more sinks, and return when it has ended.

    A job goes on from its newest checkpoint. What several sinks share is computed once.

    Parameters
    ----------
    *sinks
        What `stream.to(…)` returned.
    name
        By which the job's checkpoints are found again; by default the script's.
    parallelism
        How many workers share the rows; by default as many as the largest source has
        partitions.
    until
        `"end"`: read to the ends of the topics as they are when the job first starts, close
        the last windows, finish. By default the job runs until it is stopped.
    fresh
        Start over, without the checkpoints of earlier runs.
    log
        For the reader to see: the log of the streams, which is checked.
    checkpoint_interval
        How often progress is made durable and results become visible.
    on
        `"local"`: in this process. `"ray"`: on Ray, one actor a worker. By default on Ray where
        `RAY_ADDRESS` names a cluster.
    worker_cpus
        On Ray: how many processors each worker asks for, e.g. 0.5; 0 asks for none. By default
        one, or an even share where the cluster has fewer than workers.
    start_timeout
        On Ray: how long to wait for room for the workers, also after a node died. The job then
        fails and says what it waited for.
    on_error
        What becomes of a row that cannot be computed (a cast that does not fit, an exception in a
        function of the user's own). `"fail"`: the job fails, and names and shows it. `"skip"`: it
        is left out, and counted. `"dlq"`: it goes to the topic `<name>.dlq` with where it came
        from and the error; see `millstream dlq`.
    memory_budget
        What the state of each worker may take of memory, e.g. `"512MiB"`. Beyond it, state kept by
        key goes to disk, and is worked on part by part: results then come in larger batches, at
        the latest with each checkpoint. By default state takes what it needs.
    spill_directory
        A folder on the workers' own disks for that; by default `TMPDIR`, or `/var/tmp`.

    Raises
    ------
    PlanError, OptionError
        When the job or an option cannot be used as given.
    JobError
        When the running job failed.
    """
    location, overrides = user_location(), current_overrides()
    host = checked_host(overrides.on or on, location)
    placement = checked_placement(worker_cpus, start_timeout, overrides, host, location)
    memory = checked_memory(memory_budget, spill_directory, overrides, location)
    prepared = _prepared(
        sinks,
        location,
        overrides,
        name,
        parallelism,
        until,
        fresh,
        log,
        checkpoint_interval,
        placement,
        memory,
        on_error,
    )
    return _run(prepared, host, overrides)


def submit(
    *sinks: Sink | Sequence[Sink],
    name: str | None = None,
    parallelism: int | None = None,
    until: Literal["end"] | None = None,
    fresh: bool = False,
    log: Log | None = None,
    checkpoint_interval: str | timedelta = "1s",
    on: Literal["local", "ray"] | None = None,
    worker_cpus: float | None = None,
    start_timeout: str | timedelta = "60s",
    on_error: OnError = "fail",
    memory_budget: str | int | None = None,
    spill_directory: str | os.PathLike[str] | None = None,
    detach: bool = False,
) -> JobHandle:
    """Start a job and return a handle on it at once: to look at it, stop it, wait for it.

    Parameters
    ----------
    detach
        Whether the job outlives this process; on Ray only.
    *sinks, name, parallelism, until, fresh, log, checkpoint_interval, on, worker_cpus,
    start_timeout, on_error, memory_budget, spill_directory
        As for `run`.
    """
    location, overrides = user_location(), current_overrides()
    host = checked_host(overrides.on or on, location)
    if detach and host == "local":
        message = (
            f'{location}: detach=True is for on="ray": a job that runs in this process ends with '
            'it; give on="ray", or leave detach out'
        )
        raise OptionError(message)
    placement = checked_placement(worker_cpus, start_timeout, overrides, host, location)
    memory = checked_memory(memory_budget, spill_directory, overrides, location)
    prepared = _prepared(
        sinks,
        location,
        overrides,
        name,
        parallelism,
        until,
        fresh,
        log,
        checkpoint_interval,
        placement,
        memory,
        on_error,
    )
    return submit_prepared(prepared, host, detach=detach)


def memory_sink(node: nodes.Node) -> nodes.Sink:
    """Return a root that keeps the rows of `node` in the process."""
    return nodes.Sink(node, COLLECTED, node.keys, node.time_column, kind="memory")


def collect(node: nodes.Node, log: Log) -> pa.Table:
    """Return all rows of `node`, from the beginning to the present ends of its topics."""
    prepared = PreparedRun((memory_sink(node),), log, "collect", 1, "end", True, 1_000_000)
    result = _run(prepared, "local", RunOverrides())
    return result.tables[COLLECTED]


def explain(
    sinks: Sequence[nodes.Sink], counters: bool, parallelism: int | None, location: str
) -> Explanation:
    """Return what a job of `sinks` would do, or did when one of them was run last.

    Raises
    ------
    PlanError
        When counters are asked for and no run is known.
    """
    # Compiling knows all operators, and some wake the compiler of kernels: not needed to build.
    from millstream.plan.explain import explain_job

    if not counters:
        workers = _checked_parallelism(parallelism, sinks, location)
        return explain_job(sinks, _script_name(), workers)
    inputs = {id(each.input) for each in sinks}
    for each in reversed(_finished):
        if inputs.issubset({id(sink.input) for sink in each.sinks}):
            return explain_job(each.sinks, each.name, each.parallelism, each.counters)
    message = (
        f"{location}: there are no counters: this was not run in this process, or "
        f"{RUNS_KEPT} runs ago; call run or collect first"
    )
    raise PlanError(message)


def _prepared(
    sinks: Sequence[Sink | Sequence[Sink]],
    location: str,
    overrides: RunOverrides,
    name: str | None,
    parallelism: int | None,
    until: Literal["end"] | None,
    fresh: bool,
    log: Log | None,
    checkpoint_interval: str | timedelta,
    placement: Placement,
    memory: Memory,
    on_error: OnError,
) -> PreparedRun:
    """Return the run with all options checked, those from outside before the script's own."""
    ends = _flattened(sinks, location)
    home = same_log([*(each.log for each in ends), *([log] if log else [])], location)
    roots = tuple(each.node for each in ends)
    if overrides.parallelism is not None:
        parallelism = overrides.parallelism
    if (overrides.until or until) not in {None, "end"}:
        message = f'{location}: until is "end" or left out; got {until!r}'
        raise OptionError(message)
    interval_us = overrides.checkpoint_interval_us
    if interval_us is None:
        interval_us = duration_option("checkpoint_interval", checkpoint_interval, location)
    on_error = overrides.on_error or on_error
    if on_error not in {"fail", "skip", "dlq"}:
        message = f'{location}: on_error is "fail", "skip" or "dlq"; got {on_error!r}'
        raise OptionError(message)
    return PreparedRun(
        roots,
        home,
        on_error=on_error,
        name=checked_name(overrides.name or name or _script_name(), location),
        parallelism=_checked_parallelism(parallelism, roots, location),
        until=overrides.until or until,
        fresh=overrides.fresh or fresh,
        checkpoint_interval_us=interval_us,
        placement=placement,
        memory=memory,
        batch_rows=overrides.batch_rows,
        follows_partitions=parallelism is None,
    )


def _run(prepared: PreparedRun, host: Host, overrides: RunOverrides) -> RunResult:
    result = run_prepared(prepared, host, overrides.on_status)
    finished = _FinishedRun(prepared.roots, prepared.name, prepared.parallelism, result.counters)
    _finished.append(finished)
    overrides.results.append(result)
    return result


def _flattened(sinks: Sequence[Sink | Sequence[Sink]], location: str) -> list[Sink]:
    ends: list[Sink] = []
    for each in sinks:
        ends.extend(each if isinstance(each, list | tuple) else [each])  # type: ignore[list-item]  # checked next
    for end in ends:
        if not isinstance(end, Sink):
            message = (
                f"{location}: run takes sinks; got {type(end).__name__}; "
                'end the stream with .to("topic"), or look at it with .collect()'
            )
            raise PlanError(message)
    if not ends:
        message = f'{location}: run needs a sink: ms.run(stream.to("topic"))'
        raise PlanError(message)
    return ends


def _checked_parallelism(
    parallelism: int | None, sinks: Sequence[nodes.Sink], location: str
) -> int:
    if parallelism is None:
        return source_partitions(in_order(sinks))
    if type(parallelism) is not int or not 1 <= parallelism <= KEY_GROUPS:
        message = f"{location}: parallelism is from 1 to {KEY_GROUPS}; got {parallelism!r}"
        raise OptionError(message)
    return parallelism


def _script_name() -> str:
    """Return the running script's name, as a job's name; `notebook` where there is none."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    stem = PurePath(path).stem if isinstance(path, str) else ""
    name = "".join(
        each if each.isascii() and (each.isalnum() or each in "_.-") else "_" for each in stem
    )
    return name.lstrip("_.-")[:100] or "notebook"
