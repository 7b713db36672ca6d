"""What every benchmark shares: its figures, its command line, how a rate is taken."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Parameters
    ----------
    value, unit
        What was measured.
    better
        Which way is better.
    versus, ratio
        What it was compared with in the same run, and value ÷ that one's value.
    goal
        In terms of the ratio where there is one, else of the value.
    """

    value: float
    unit: str
    better: Literal["higher", "lower"] = "higher"
    versus: str | None = None
    ratio: float | None = None
    goal: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; `None` where there is none."""
        if self.goal is None:
            return None
        measured = self.value if self.ratio is None else self.ratio
        return measured >= self.goal if self.better == "higher" else measured <= self.goal


Figures = dict[str, Figure]


def compared(
    value: float, unit: str, versus: str, other: float, *, goal: float | None = None
) -> Figure:
    """Return the figure of a rate beside `other`, the rate of `versus` in the same run."""
    return Figure(value, unit, "higher", versus, value / other, goal)


def seconds_of(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Return the median wall time of `work`; what it allocates is freed between runs."""
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Give a directory on the disk that the repository is on; gone afterwards."""
    parent = ROOT / "build"
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def as_json(figures: Figures) -> str:
    """Return the JSON object of `--json`."""
    return json.dumps({"figures": {name: asdict(each) for name, each in figures.items()}}, indent=2)


def number_text(value: float) -> str:
    """Return a value for a table: three significant digits, millions as M.

    Examples
    --------
    >>> number_text(12_345_678)
    '12.3 M'
    """
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if suffix == " k" else limit)
            return f"{scaled:.3g}{suffix}" if scaled < 1000 else f"{scaled:.0f}{suffix}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def table_rows(figures: Figures) -> list[tuple[str, str, str, str]]:
    """Return rows of text: figure, value, beside what, goal."""
    rows = []
    for name, figure in figures.items():
        sign = "≥" if figure.better == "higher" else "≤"
        mark = {None: "", True: " ✓", False: " ✗"}[figure.reached]
        beside = "" if figure.ratio is None else f"{figure.ratio:.2f} × {figure.versus}"
        goal = "" if figure.goal is None else f"{sign} {figure.goal:g}{mark}"
        rows.append((name, f"{number_text(figure.value)} {figure.unit}".strip(), beside, goal))
    return rows


def main(run: Callable[[bool], Figures], description: str | None) -> None:
    """Be the command line of a benchmark; `run` takes whether to be quick."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less data: for a look, not a figure")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = run(options.quick)
    if options.json:
        sys.stdout.write(as_json(figures) + "\n")
        return
    for row in table_rows(figures):
        sys.stdout.write("  ".join(text.ljust(34) for text in row).rstrip() + "\n")
