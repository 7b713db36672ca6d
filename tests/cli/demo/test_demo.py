"""`millstream demo` from end to end, and what it says where it cannot begin."""

from __future__ import annotations

import importlib.util
import shlex
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from millstream.cli.demo.command import EXTRA_PACKAGES
from tests.cli.conftest import Command
from tests.runtime.hosts.ray_kit import own_network


@pytest.mark.parametrize("missing", EXTRA_PACKAGES)
def test_a_missing_extra_is_named_before_anything_is_done(
    millstream: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    code, out, error = millstream("demo", "--directory", tmp_path / "demo")
    assert (code, out) == (2, "")
    assert missing in error
    assert "pip install 'millstream[demo]'" in error
    assert not (tmp_path / "demo").exists()


def test_a_directory_that_is_not_the_demos_is_refused(millstream: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, error = millstream("demo", "--directory", tmp_path)
    assert code == 2
    assert "not the demo's" in error
    assert (tmp_path / "thesis.tex").exists()


def test_the_whole_demo(
    millstream: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    directory = tmp_path / "demo"
    code, out, error = millstream("demo", "--no-ray", "--directory", directory)
    assert code == 0, error
    told = " ".join(out.split())
    assert "✓ DuckDB, asked the same over the same data, agrees: 15,821 hours with 70,774" in told
    assert "no flight came too late for its hour; 8,255 cancelled flights went to" in told
    assert "✓ A model that goes row by row in plain Python agrees: 13,169 hours with 34" in told
    assert "and all 35,897 flights that came too late for their hour; 8,255" in told
    assert "The ten worst hours of 2013" in out
    assert out.count("La Guardia (LGA)") == 6
    assert error.count("watermark (UTC)") == 2
    picture = directory / "late_departures.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    # The commands that it proposes are there to be copied.
    proposed = out.partition("Three commands to try next:")[2].replace("\\\n", "")
    commands = [shlex.split(line) for line in proposed.splitlines() if line.strip()]
    assert [Path(command[0]).name for command in commands] == ["millstream"] * 3
    for command in commands:
        code, _, error = millstream(*command[1:])
        assert code == 0, error


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_the_demo_on_ray_loses_a_worker_and_nothing_else(
    millstream: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    with own_network():
        code, out, error = millstream("demo", "--ray", "--directory", tmp_path / "demo")
    assert code == 0, error
    told = " ".join(error.split())
    assert "was killed with SIGKILL after checkpoint" in told
    assert "its first results were committed" in told
    assert "agrees: 15,821 hours with 70,774" in " ".join(out.split())
    assert "agrees: 13,169 hours with 34" in " ".join(out.split())
