"""`millstream run`: a job script, with options from outside and a live view of its workers."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from millstream.cli.console import notes
from millstream.cli.options import LogOption, open_log
from millstream.errors import MillstreamError, OptionError

if TYPE_CHECKING:
    from millstream.dsl.run_context import RunOverrides
    from millstream.runtime.result import RunResult


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is told from outside the script; `None` leaves the script's own."""

    name: str | None = None
    parallelism: int | None = None
    until: Literal["end"] | None = None
    fresh: bool = False
    checkpoint_interval: str | None = None
    log: str | None = None
    on: Literal["local", "ray"] | None = None
    worker_cpus: float | None = None
    start_timeout: str | None = None
    batch_rows: int | None = None
    on_error: Literal["fail", "skip", "dlq"] | None = None
    memory_budget: str | None = None
    spill_directory: str | None = None


WorkerCpusOption = Annotated[
    float | None,
    typer.Option(help="On Ray: processors of each worker, e.g. 0.5; by default 1 or a share."),
]
StartTimeoutOption = Annotated[
    str | None, typer.Option(help="On Ray: how long to wait for room for the workers, e.g. 5m.")
]

OnErrorOption = Annotated[
    Literal["fail", "skip", "dlq"] | None,
    typer.Option(help="Of a row that cannot be computed: skip counts it, dlq keeps it."),
]

CheckpointIntervalOption = Annotated[
    str | None, typer.Option(help="How often results become visible and progress durable, e.g. 5s.")
]
OnOption = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(help="local: in this process; ray: one actor a worker."),
]
MemoryBudgetOption = Annotated[
    str | None,
    typer.Option(help="What a worker's state may take of memory before it goes to disk: 512MiB."),
]
SpillDirectoryOption = Annotated[
    str | None, typer.Option(help="Where it goes then; by default TMPDIR, or /var/tmp.")
]


def run(
    script: Annotated[
        Path, typer.Argument(help="A Python script that calls ms.run.", metavar="SCRIPT")
    ],
    script_arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENTS]", help="The script's own.")
    ] = None,
    *,
    parallelism: Annotated[
        int | None, typer.Option(min=1, help="Workers; by default one for each partition.")
    ] = None,
    until: Annotated[
        Literal["end"] | None,
        typer.Option(help="end: read what is there, close the last windows, finish."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on from a checkpoint.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="The job's name; by default the script's.")
    ] = None,
    checkpoint_interval: CheckpointIntervalOption = None,
    on: OnOption = None,
    worker_cpus: WorkerCpusOption = None,
    start_timeout: StartTimeoutOption = None,
    on_error: OnErrorOption = None,
    memory_budget: MemoryBudgetOption = None,
    spill_directory: SpillDirectoryOption = None,
    log: LogOption = None,
) -> None:
    """Run a job script and show how it gets on."""
    settings = RunSettings(
        name=name,
        parallelism=parallelism,
        until=until,
        fresh=fresh,
        checkpoint_interval=checkpoint_interval,
        log=log,
        on=on,
        worker_cpus=worker_cpus,
        start_timeout=start_timeout,
        on_error=on_error,
        memory_budget=memory_budget,
        spill_directory=spill_directory,
    )
    results = run_script(script, script_arguments or [], settings)
    if not results:
        message = (
            f"{str(script)!r} ran no job; it should call ms.run(…), also when it runs as a "
            'script: if __name__ == "__main__"'
        )
        raise OptionError(message)
    if not results[-1].finished:
        notes.print(
            f"{name or script.stem}: stopped after a last checkpoint; "
            "run it again and it goes on from there",
            markup=False,
            soft_wrap=True,
        )


def run_script(script: Path, arguments: list[str], settings: RunSettings) -> list[RunResult]:
    """Run `script` as `__main__` with a live view; return the results of the jobs it ran.

    Raises
    ------
    OptionError
        When there is no such script, or a setting cannot be used.
    SystemExit
        With code 1 after an exception in the script's own code, whose traceback was printed.
    """
    from millstream.cli.live import LiveView
    from millstream.dsl.run_context import override_run

    if not script.is_file():
        message = f"there is no script {str(script)!r}"
        raise OptionError(message)
    overrides = _overrides(settings)
    with LiveView(escape(settings.name or script.stem)) as view:
        overrides = replace(overrides, on_status=view.update)
        with _as_main(script, arguments), override_run(overrides):
            _run_path(script)
    return overrides.results


def _overrides(settings: RunSettings) -> RunOverrides:
    """Return the settings, checked, as a script's `ms.run` asks for them."""
    from millstream.dsl.memory import memory_budget_bytes
    from millstream.dsl.placement import checked_worker_cpus, start_timeout_us
    from millstream.dsl.run_context import RunOverrides
    from millstream.dsl.windows import duration_option

    where = "the command line"
    interval, timeout = settings.checkpoint_interval, settings.start_timeout
    budget = settings.memory_budget
    return RunOverrides(
        name=settings.name,
        parallelism=settings.parallelism,
        until=settings.until,
        fresh=settings.fresh,
        checkpoint_interval_us=(
            None if interval is None else duration_option("checkpoint_interval", interval, where)
        ),
        log=None if settings.log is None else open_log(settings.log),
        on=settings.on,
        worker_cpus=checked_worker_cpus(settings.worker_cpus, where),
        start_timeout_us=None if timeout is None else start_timeout_us(timeout, where),
        batch_rows=settings.batch_rows,
        on_error=settings.on_error,
        memory_budget_bytes=None if budget is None else memory_budget_bytes(budget, where),
        spill_directory=settings.spill_directory,
    )


def _run_path(script: Path) -> None:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except MillstreamError:
        raise
    except Exception as error:
        notes.print(_script_traceback(error, script), markup=False, soft_wrap=True, end="")
        raise SystemExit(1) from error


def _script_traceback(error: Exception, script: Path) -> str:
    """Return the traceback as if the script had been started by Python itself.

    A script that is no Python has no frame of its own, and so none is shown.
    """
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(script):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


@contextmanager
def _as_main(script: Path, arguments: list[str]) -> Iterator[None]:
    """Give the script the arguments and the import path that Python would give it."""
    argv, path = sys.argv, sys.path
    sys.argv = [str(script), *arguments]
    sys.path = [str(script.parent.resolve()), *path]
    try:
        yield
    finally:
        sys.argv, sys.path = argv, path
