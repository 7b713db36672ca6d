"""`millstream jobs`: what runs, how it gets on, and how it is told to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from millstream.cli.console import bytes_text, notes, out, state_text, time_text
from millstream.cli.options import LogOption, open_log
from millstream.clock import SystemClock

if TYPE_CHECKING:
    from millstream.runtime.activity import WorkerStatus
    from millstream.runtime.control import JobControl, JobRecord

app = typer.Typer(help="List, describe and end jobs.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(help="The job's name.", metavar="JOB")]
METRICS_PORT = 9464


def _control(job: str, log: LogOption) -> JobControl:
    from millstream.runtime.control import known_job

    return known_job(open_log(log), job)


@app.command("list")
def list_jobs(log: LogOption = None) -> None:
    """List the jobs of the log and how they are."""
    from millstream.runtime.control import JobControl, job_names

    opened = open_log(log)
    records = [JobControl(opened, name).record() for name in job_names(opened)]
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("job", "state", "on", "workers", "checkpoint", "rows read", "attempt"):
        right = heading in {"workers", "checkpoint", "rows read", "attempt"}
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for record in records:
        if record is not None:
            table.add_row(
                escape(record.job),
                record.state.value,
                record.host,
                f"{record.parallelism}",
                "–" if record.checkpoint is None else f"{record.checkpoint}",
                f"{sum(each.rows_read for each in record.workers):,}",
                f"{record.attempt}",
            )
    if not any(records):
        notes.print(f"no jobs in {opened.path}", markup=False)
        return
    out.print(table)


@app.command("describe")
def describe_job(job: JobArgument, log: LogOption = None) -> None:
    """Show a job's state, its workers and its operators."""
    record = _control(job, log).record()
    if record is None:
        notes.print(f"job {job!r} has not said anything yet", markup=False)
        return
    _print_facts(record)
    if record.workers:
        out.print(_workers_table(record.workers))
        out.print(_operators_table(record.workers))


@app.command("stop")
def stop_job(job: JobArgument, log: LogOption = None) -> None:
    """End a job after one more checkpoint; open windows stay open in it."""
    _control(job, log).ask("stop")
    notes.print(f"job {job!r} was asked to stop", markup=False)


@app.command("drain")
def drain_job(
    job: JobArgument,
    *,
    flush: Annotated[
        bool, typer.Option(help="Give out open windows, or keep them for a later run.")
    ] = True,
    log: LogOption = None,
) -> None:
    """Let a job read no further and end."""
    _control(job, log).ask("drain", flush=flush)
    notes.print(f"job {job!r} was asked to drain", markup=False)


@app.command("cancel")
def cancel_job(job: JobArgument, log: LogOption = None) -> None:
    """End a job at once; what it had not committed is taken back."""
    _control(job, log).ask("cancel")
    notes.print(f"job {job!r} was asked to end at once", markup=False)


@app.command("logs")
def show_logs(
    job: JobArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more.")] = False,
    log: LogOption = None,
) -> None:
    """Print what happened to a job, one JSON object a line."""
    import msgspec

    from millstream.runtime.control import known_job
    from millstream.runtime.journal import Journal

    opened = open_log(log)
    known_job(opened, job)
    journal, clock, shown = Journal(opened, job), SystemClock(), 0
    while True:
        records = journal.read()
        for record in records[shown:]:
            out.print(msgspec.json.encode(record).decode(), markup=False, soft_wrap=True)
        shown = len(records)
        if not follow:
            return
        clock.sleep_us(200_000)


@app.command("metrics")
def serve_metrics(
    port: Annotated[int, typer.Option(help="Where to listen.")] = METRICS_PORT,
    host: Annotated[str, typer.Option(help="On which address.")] = "127.0.0.1",
    log: LogOption = None,
) -> None:
    """Serve the metrics of all jobs of the log to Prometheus, at /metrics, until interrupted."""
    from millstream.cli.metrics import serve

    server, thread = serve(open_log(log), host, port)
    notes.print(f"http://{host}:{server.server_port}/metrics", markup=False)
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()


def _print_facts(record: JobRecord) -> None:
    facts = Table.grid(padding=(0, 2))
    state = record.state.value + (f": {record.reason}" if record.reason else "")
    checkpoint = "none"
    if record.checkpoint is not None:
        when = "" if record.checkpoint_us is None else f", at {time_text(record.checkpoint_us)}"
        size = record.checkpoint_bytes
        kept = "" if size is None else f", {bytes_text(size)} of state"
        checkpoint = f"{record.checkpoint}{when}{kept}; {record.checkpoints} in this run"
    for name, value in (
        ("job", record.job),
        ("state", state),
        ("on", f"{record.host}, process {record.pid} on {record.node}"),
        ("since", time_text(record.started_us)),
        ("attempt", f"{record.attempt}, epoch {record.epoch}"),
        ("checkpoint", checkpoint),
        ("slowest operator", record.slowest_operator() or "–"),
        ("watermark held by", record.holding_partition() or "nobody"),
    ):
        facts.add_row(name, escape(value))
    out.print(facts)


def _workers_table(workers: tuple[WorkerStatus, ...]) -> Table:
    table = Table(title="workers", title_justify="left", box=box.SIMPLE_HEAD)
    headings = ("worker", "rows in", "rows out", "lag", "busy", "backpressured", "idle")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("watermark (UTC)")
    for each in workers:
        spent = max(each.busy_us + each.backpressured_us + each.idle_us, 1)
        table.add_row(
            f"{each.worker}",
            f"{each.rows_read:,}",
            f"{each.rows_written:,}",
            f"{each.lag_rows:,}",
            f"{each.busy_us / spent:.0%}",
            f"{each.backpressured_us / spent:.0%}",
            f"{each.idle_us / spent:.0%}",
            time_text(each.watermark_us),
        )
    return table


def _operators_table(workers: tuple[WorkerStatus, ...]) -> Table:
    table = Table(title="operators", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("operator", overflow="fold")
    for heading in (
        "rows in",
        "rows out",
        "late",
        "failed",
        "bytes in",
        "busy",
        "state keys",
        "state",
    ):
        table.add_column(heading, justify="right")
    for name in workers[0].operators:
        of_all = [each.operators[name] for each in workers if name in each.operators]
        table.add_row(
            escape(name),
            f"{sum(each.rows_in for each in of_all):,}",
            f"{sum(each.rows_out for each in of_all):,}",
            f"{sum(each.rows_late for each in of_all):,}",
            f"{sum(each.rows_failed for each in of_all):,}",
            bytes_text(sum(each.bytes_in for each in of_all)),
            f"{sum(each.busy_us for each in of_all) / 1e6:.2f} s",
            f"{sum(each.state_keys for each in of_all):,}",
            state_text(
                sum(each.state_bytes for each in of_all),
                sum(each.state_disk_bytes for each in of_all),
            ),
        )
    return table
