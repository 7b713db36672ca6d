"""What the demo says: in plain words, the ten worst hours, and where to go next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from millstream.cli.console import out, plain_table, print_indented, print_table
from millstream.cli.demo.checks import Agreement
from millstream.cli.demo.plot import AIRPORTS

WORST_HOURS = 10


def say_step(number: int, text: str) -> None:
    """Print the heading of a step."""
    out.print(f"\n[bold]{number}. {text}[/]\n")


def say_agreement(oracle: str, found: Agreement) -> None:
    """Print what a check compared and that all of it agreed."""
    late = (
        f"and all {found.late:,} flights that came too late for their hour"
        if found.late
        else "and no flight came too late for its hour"
    )
    out.print()
    print_indented(
        f"[green]✓[/] {oracle} agrees: {found.hours:,} hours with {found.flights:,} late "
        f"departures, {late}; {found.cancelled:,} cancelled flights went to the side output."
    )


def worst_hours(hours: pa.Table) -> pa.Table:
    """Return the ten hours with the most delay in all, the worst first."""
    delay = pc.multiply(hours["flights"].cast(pa.float64()), hours["mean_delay"])
    order = [("total_delay", "descending"), ("window_start", "ascending"), ("origin", "ascending")]
    return hours.append_column("total_delay", delay).sort_by(order).slice(0, WORST_HOURS)


def say_worst_hours(hours: pa.Table) -> None:
    """Print the ten worst hours as a table."""
    say_step(4, "The ten worst hours of 2013")
    table = plain_table()
    table.add_column("airport", no_wrap=True)
    table.add_column("hour (UTC)", no_wrap=True)
    for heading in ("late flights", "mean", "worst", "all delays"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in worst_hours(hours).to_pylist():
        table.add_row(
            f"{AIRPORTS.get(row['origin'], row['origin'])} ({row['origin']})",
            row["window_start"].strftime("%a %d %b %H:00"),
            f"{row['flights']}",
            f"{row['mean_delay']:.0f} min",
            f"{row['worst_delay']} min",
            f"{row['total_delay'] / 60:.0f} h",
        )
    print_table(table)


def say_where_to_go(directory: Path, job: Path, picture: Path, elapsed_s: float) -> None:
    """Print where everything is and three commands to try next."""
    log = escape(str(directory))
    places = Table.grid(padding=(0, 2))
    for what, where in (
        ("the log", f"{log}/"),
        ("the picture", escape(str(picture))),
        ("the job", escape(str(job))),
    ):
        places.add_row(what, f"[cyan]{where}[/]")
    out.print(f"\n[bold]Done in {elapsed_s:.1f} s.[/]\n")
    print_table(places)
    out.print("\nThree commands to try next:\n")
    program = _program()
    for command in (
        f"{program} topics describe flights --log {log}",
        f"{program} consume late_departures --log {log} --limit 5",
        f"{program} run {escape(str(job))} --log {log} --until end \\\n"
        "       --name patient -- --lateness 2h --output patient",
    ):
        out.print(f"   [cyan]{command}[/]", soft_wrap=True)


def _program() -> str:
    """Return how this shell calls `millstream`: by its path where it is not found by name."""
    installed = Path(sys.executable).with_name("millstream")
    if shutil.which("millstream") is not None or not installed.exists():
        return "millstream"
    current = Path.cwd()
    return str(installed.relative_to(current) if installed.is_relative_to(current) else installed)
