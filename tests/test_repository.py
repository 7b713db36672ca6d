"""What a newcomer meets first is there and true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)", text)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


def test_the_tour_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text[text.index("## Where things are decided") :]
    named = re.findall(r"`([a-z_/]+\.(?:py|md)|log/FORMAT\.md)`", table)
    assert named
    assert [name for name in named if not (ROOT / "millstream" / name).exists()] == []


@pytest.mark.parametrize(("name", "lines_max"), [("ARCHITECTURE.md", 230), ("CONTRIBUTING.md", 60)])
def test_documents_stay_short(name: str, lines_max: int) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= lines_max


def test_everything_that_setup_installs_has_an_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    wanted = {re.split(r"[<>=~ \[]", name)[0] for name in project["dependencies"] + extras}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = {line.partition("==")[0] for line in lines if "==" in line}
    assert wanted - exact == set()
    assert [line for line in lines if "/" in line or "@" in line] == []
