"""Two results side by side: what got faster and what slower.

    python -m benchmarks.compare OLD.json NEW.json [--tolerance 0.1]

Where a figure has a ratio (it was taken beside a peer in the same run) the ratios are compared,
since they depend less on the machine and on what else ran. Ends with 1 when something is
worse than the tolerance allows.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Figure, number_text


@dataclass(frozen=True, slots=True)
class Change:
    """How one figure moved; `gain` is above 1 where it got better."""

    name: str
    before: float
    after: float
    gain: float


def read_figures(path: Path) -> dict[str, Figure]:
    """Return all figures of a result, named `benchmark.figure` in a result of several."""
    content = json.loads(path.read_text(encoding="utf-8"))
    groups = content.get("benchmarks", {"": content})
    return {
        f"{group}.{name}".lstrip("."): Figure(**fields)
        for group, each in groups.items()
        for name, fields in each["figures"].items()
    }


def changes(before: dict[str, Figure], after: dict[str, Figure]) -> list[Change]:
    """Return how the figures that both have moved, the worst first."""
    found = []
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        paired = old.ratio is not None and new.ratio is not None and old.versus == new.versus
        was, now = (old.ratio, new.ratio) if paired else (old.value, new.value)
        assert was is not None
        assert now is not None
        if not was or not now:
            continue
        gain = now / was if new.better == "higher" else was / now
        found.append(Change(name, was, now, gain))
    return sorted(found, key=lambda change: (change.gain, change.name))


def main() -> None:
    """Print the comparison; exit with 1 when something got worse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1, help="what noise may take (0.1)")
    options = parser.parse_args()
    found = changes(read_figures(options.before), read_figures(options.after))
    for change in found:
        sys.stdout.write(
            f"{change.gain:6.2f} ×  {change.name}: "
            f"{number_text(change.before)} → {number_text(change.after)}\n"
        )
    sys.exit(any(change.gain < 1 - options.tolerance for change in found))


if __name__ == "__main__":
    main()
