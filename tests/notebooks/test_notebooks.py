"""Every notebook runs from its first cell to its last, over a month of the demo's flights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from millstream.cli.demo.flights import data_folder, read_flights, read_tables
from millstream.cli.demo.load import load_topics
from millstream.log import Log

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FLIGHTS_IN_JANUARY = 27_004

read_notebook: Any = nbformat.read  # has no types


@pytest.fixture(scope="module")
def log_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("notebooks") / "log"
    folder = data_folder()
    load_topics(
        Log(directory), read_flights(folder).slice(0, FLIGHTS_IN_JANUARY), read_tables(folder)
    )
    return directory


@pytest.mark.filterwarnings("default")  # the notebook client's own libraries warn
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path: Path, log_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_LOG", str(log_directory))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = read_notebook(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=100, resources={"metadata": {"path": NOTEBOOKS}}
    ).execute()
    drawn = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert len(drawn) >= 5, "the DataFrames and the plans are shown, not printed"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_stored_without_output(path: Path) -> None:
    notebook = read_notebook(path, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get("outputs")] == []
