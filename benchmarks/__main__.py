"""Run every benchmark, keep the figures in `results/latest.json` and renew README's table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Figure, table_rows

BENCHMARKS = (
    "filter_map",
    "window_aggregate",
    "nexmark",
    "state",
    "exchange",
    "on_ray",
    "log",
    "startup",
)
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
Result = dict[str, dict[str, dict[str, Any]]]
"""What a benchmark prints: its figures by name, each with the fields of `Figure`."""
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def run_alone(name: str, *, quick: bool) -> Result:
    """Return the JSON of a benchmark, run in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(
        command + ["--quick"] * quick, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    result: Result = json.loads(done.stdout)
    return result


def machine() -> dict[str, object]:
    """Return what the figures were taken on."""
    packages = ("pyarrow", "numpy", "numba", "duckdb")
    return {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def processor() -> str:
    """Return the processor's name as Linux gives it, else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def readme_table(results: dict[str, Result]) -> str:
    """Return the Markdown table of the figures that have a goal, or a peer or bound beside them."""
    lines = ["| benchmark | figure | value | beside | goal |", "|---|---|---:|---|---|"]
    for benchmark, result in results.items():
        figures = {name: Figure(**fields) for name, fields in result["figures"].items()}
        lines.extend(
            f"| `{benchmark}` | {name.replace('_', ' ')} | {value} | {beside} | {goal} |"
            for name, value, beside, goal in table_rows(figures)
            if beside or goal
        )
    return "\n".join(lines)


def renew_readme(readme: Path, table: str) -> None:
    """Replace what stands between the markers in `readme` by `table`."""
    text = readme.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        message = f"{readme} lacks the markers {BEGIN} and {END}"
        raise ValueError(message)
    readme.write_text(f"{head}{begin}\n{table}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    """Run what was asked for; only a full run of everything is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="less data; nothing is kept")
    options = parser.parse_args()
    results = {}
    for name in options.names or BENCHMARKS:
        sys.stderr.write(f"{name} …\n")
        results[name] = run_alone(name, quick=options.quick)
    table = readme_table(results)
    sys.stdout.write(table + "\n")
    if options.quick or options.names:
        return
    content = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "benchmarks": results,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    renew_readme(ROOT / "README.md", table)


if __name__ == "__main__":
    main()
