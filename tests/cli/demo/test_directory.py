from __future__ import annotations

from pathlib import Path

import pytest

from millstream.cli.demo.directory import MARKER, empty_directory
from millstream.errors import OptionError


def test_a_new_directory_is_made_and_marked(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "demo"
    empty_directory(directory)
    assert [entry.name for entry in directory.iterdir()] == [MARKER]


def test_what_a_demo_left_is_removed(tmp_path: Path) -> None:
    empty_directory(tmp_path / "demo")
    (tmp_path / "demo" / "topics").mkdir()
    (tmp_path / "demo" / "topics" / "segment").write_text("x")
    (tmp_path / "demo" / "picture.png").write_text("x")
    empty_directory(tmp_path / "demo")
    assert [entry.name for entry in (tmp_path / "demo").iterdir()] == [MARKER]


def test_a_link_is_removed_but_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    empty_directory(tmp_path / "demo")
    (tmp_path / "demo" / "link").symlink_to(tmp_path / "precious")
    empty_directory(tmp_path / "demo")
    assert (tmp_path / "precious" / "file").exists()


def test_a_directory_that_is_not_a_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OptionError, match="not the demo's"):
        empty_directory(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="is a file"):
        empty_directory(tmp_path / "file")
