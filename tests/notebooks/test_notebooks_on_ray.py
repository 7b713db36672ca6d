"""The same notebook with `on="ray"`; several jobs started and stopped in one kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from millstream.cli.demo.flights import data_folder, read_flights, read_tables
from millstream.cli.demo.load import load_topics
from millstream.log import Log
from tests.notebooks.test_notebooks import FLIGHTS_IN_JANUARY, NOTEBOOKS, read_notebook
from tests.runtime.hosts.ray_kit import own_network

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240), pytest.mark.filterwarnings("default")]

SEVERAL = """
origins = ms.stream("flights", log=log).select("origin")
handles = [
    ms.submit(origins.to(f"copy_{i}"), name=f"copy_{i}", parallelism=1, on="ray")
    for i in range(2)
]
import time
deadline = time.monotonic() + 60
while any(each.status().checkpoints < 1 for each in handles) and time.monotonic() < deadline:
    time.sleep(0.05)
for each in handles:
    each.stop()
results = [each.wait(60) for each in handles]
print([each.finished for each in results], [each.status().state.value for each in handles])
print(sum(log.topic("copy_1").stable_ends()))
again = ms.submit(origins.to("copy_0"), name="copy_0", parallelism=1, on="ray")
while again.status().checkpoints < 1 and time.monotonic() < deadline:
    time.sleep(0.05)
again.cancel()
try:
    again.wait(60)
except ms.MillstreamError as error:
    print(type(error).__name__)
"""


def test_the_first_notebook_runs_on_ray(tmp_path: Path) -> None:
    folder = data_folder()
    load_topics(
        Log(tmp_path / "log"),
        read_flights(folder).slice(0, FLIGHTS_IN_JANUARY),
        read_tables(folder),
    )
    notebook = read_notebook(NOTEBOOKS[0], as_version=4)
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and 'until="end"' in cell.source:
            cell.source = cell.source.replace('until="end"', 'until="end", on="ray"')
            changed += 1
    assert changed == 1
    new_cell: Any = nbformat.v4.new_code_cell
    notebook.cells.append(new_cell(SEVERAL))
    resources = {"metadata": {"path": NOTEBOOKS[0].parent}}
    with own_network(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLSTREAM_LOG", str(tmp_path / "log"))
        patch.delenv("MPLBACKEND", raising=False)
        nbclient.NotebookClient(notebook, timeout=200, resources=resources).execute()
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    texts = "".join(each["text"] for each in outputs if each.get("name") == "stdout")
    assert f"{FLIGHTS_IN_JANUARY:,} rows in" in texts
    assert "[False, False] ['stopped', 'stopped']" in texts
    assert f"\n{FLIGHTS_IN_JANUARY}\n" in texts
    assert texts.rstrip().endswith("JobCancelledError")
