"""Run the figures of the log, or of the modules named."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.harness import Figures, as_json, table_rows

MODULES = (
    "appends",
    "producers",
    "sends",
    "waking",
    "opening",
    "reading",
    "cleaning",
    "groups",
    "remote",
    "peers",
)


def main() -> None:
    """Be the command line; figures of one module come with its name before them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(MODULES)}")
    parser.add_argument("--quick", action="store_true", help="less data: for a look, not a figure")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures: Figures = {}
    for name in options.names or MODULES:
        sys.stderr.write(f"log.{name} …\n")
        module = importlib.import_module(f"benchmarks.log.{name}")
        figures |= {f"{name}_{each}": figure for each, figure in module.run(options.quick).items()}
    if options.json:
        sys.stdout.write(as_json(figures) + "\n")
        return
    for row in table_rows(figures):
        sys.stdout.write("  ".join(text.ljust(34) for text in row).rstrip() + "\n")


if __name__ == "__main__":
    main()
