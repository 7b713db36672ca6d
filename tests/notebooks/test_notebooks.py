"""Every notebook runs from its first cell to its last, over a month of the demo's flights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from millstream.cli.demo.flights import data_folder, read_flights, read_tables
from millstream.cli.demo.load import load_topics
from millstream.log import Log

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
FLIGHTS_IN_JANUARY = 27_004

Outputs = list[dict[str, Any]]

read_notebook: Any = nbformat.read  # has no types


@pytest.fixture(scope="module")
def run_notebook(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Outputs]:
    """Runs a notebook, once, and gives the outputs of its cells."""
    directory = tmp_path_factory.mktemp("notebooks") / "log"
    folder = data_folder()
    load_topics(
        Log(directory), read_flights(folder).slice(0, FLIGHTS_IN_JANUARY), read_tables(folder)
    )
    known: dict[Path, Outputs] = {}

    def run(path: Path) -> Outputs:
        if path not in known:
            notebook = read_notebook(path, as_version=4)
            resources = {"metadata": {"path": path.parent}}
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MILLSTREAM_LOG", str(directory))
                patch.delenv("MPLBACKEND", raising=False)  # pictures are drawn in the notebook
                nbclient.NotebookClient(notebook, timeout=100, resources=resources).execute()
            known[path] = [each for cell in notebook.cells for each in cell.get("outputs", ())]
        return known[path]

    return run


@pytest.mark.filterwarnings("default")  # the notebook client's own libraries warn
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_something(
    path: Path, run_notebook: Callable[[Path], Outputs]
) -> None:
    outputs = run_notebook(path)
    assert any("text/html" in each.get("data", {}) for each in outputs)
    assert [each for each in outputs if each.get("name") == "stderr"] == []


@pytest.mark.filterwarnings("default")  # as above
def test_the_first_one_draws_plans_counts_rows_and_plots(
    run_notebook: Callable[[Path], Outputs],
) -> None:
    outputs = run_notebook(NOTEBOOKS[0])
    shown = [each["data"] for each in outputs if "data" in each]
    drawn = [data["text/html"] for data in shown if "text/html" in data]
    plans = [html for html in drawn if "<svg" in html]
    assert (len(drawn), len(plans)) == (5, 3)
    assert "exchange" in plans[-1]
    assert sum("image/png" in data for data in shown) == 1
    mistake, counted = (each["text"] for each in outputs if "text" in each)
    assert mistake.startswith("notebook cell In[5]:2: no column 'dep_dely'; did you mean")
    assert f"{FLIGHTS_IN_JANUARY:,} rows in" in counted
    through = re.findall(r"Numba ([\d,]+), pyarrow [\d,]+, Python ([\d,]+)", counted)
    assert len(through) == 4
    assert all(numba != "0" and python == "0" for numba, python in through)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_output(path: Path) -> None:
    notebook = read_notebook(path, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get("outputs")] == []
