from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BEGIN, END, readme_table, renew_readme
from benchmarks.compare import changes, read_figures
from benchmarks.harness import ROOT, Figure, as_json, compared, number_text


def test_a_ratio_is_value_by_value() -> None:
    figure = compared(30.0, "rows/s", "peer", 60.0, goal=0.5)
    assert figure.ratio == 0.5
    assert figure.reached is True


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure(2.0, "s", "lower", goal=3.0), True),
        (Figure(4.0, "s", "lower", goal=3.0), False),
        (Figure(9.0, "rows/s", "higher", "peer", 0.4, 0.5), False),
        (Figure(0, "rows", "lower", goal=0), True),
        (Figure(1.0, "s"), None),
    ],
)
def test_goals_are_in_terms_of_the_ratio_where_there_is_one(
    figure: Figure, reached: bool | None
) -> None:
    assert figure.reached is reached


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_345_678, "12.3 M"),
        (470_000_000, "470 M"),
        (1_500, "1500"),
        (15_000, "15 k"),
        (0.1234, "0.123"),
        (0, "0"),
        (2.5e9, "2.5 G"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number_text(value) == text


def test_readme_keeps_what_is_around_the_table(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    figures = json.loads(as_json({"rate": compared(5.0, "rows/s", "peer", 4.0, goal=1.0)}))
    renew_readme(readme, readme_table({"example": figures}))
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| benchmark |")
    assert text.endswith(f"{END}\nafter\n")
    assert "| `example` | rate | 5 rows/s | 1.25 × peer | ≥ 1 ✓ |" in text
    assert "old" not in text


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(ValueError, match="lacks the markers"):
        renew_readme(tmp_path / "README.md", "table")


def test_changes_are_by_ratio_and_the_worst_comes_first() -> None:
    before = {
        "rate": Figure(100.0, "rows/s", "higher", "peer", 1.0),
        "start": Figure(1.0, "s", "lower"),
        "gone": Figure(1.0, "s", "lower"),
    }
    after = {
        # Twice as slow in all, but so was the peer: not worse.
        "rate": Figure(50.0, "rows/s", "higher", "peer", 1.1),
        "start": Figure(2.0, "s", "lower"),
        "new": Figure(1.0, "s", "lower"),
    }
    assert [(change.name, round(change.gain, 3)) for change in changes(before, after)] == [
        ("start", 0.5),
        ("rate", 1.1),
    ]


def test_comparing_two_files_fails_when_something_is_worse(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    fast, slow = (
        as_json({"start": Figure(1.0, "s", "lower")}),
        as_json({"start": Figure(2.0, "s", "lower")}),
    )
    old.write_text(json.dumps({"benchmarks": {"startup": json.loads(fast)}}))
    new.write_text(json.dumps({"benchmarks": {"startup": json.loads(slow)}}))
    assert read_figures(old) == {"startup.start": Figure(1.0, "s", "lower")}

    def compare(*paths: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.compare", *map(str, paths)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    worse = compare(old, new)
    assert (worse.returncode, worse.stderr) == (1, "")
    assert "0.50 ×  startup.start: 1 → 2" in worse.stdout
    assert compare(new, old).returncode == 0
