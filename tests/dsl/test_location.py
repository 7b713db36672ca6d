from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from millstream.dsl.expressions import col
from millstream.dsl.location import user_location


def here() -> str:
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def test_the_place_is_the_first_one_outside_the_package() -> None:
    assert (col("a") + 1).location == here()


def test_each_operator_has_the_line_where_it_was_written() -> None:
    first = col("a")
    second = first + 1
    lines = [int(each.location.rsplit(":", 1)[1]) for each in (first, second)]
    assert lines[1] == lines[0] + 1


def place_in_cell(path: str) -> object:
    scope: dict[str, object] = {"user_location": user_location}
    exec(compile("\nplace = user_location()", path, "exec"), scope)
    return scope["place"]


def test_a_cell_of_a_notebook_is_called_as_the_notebook_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "/tmp/ipykernel_17/2901.py"
    names = {path: ("Cell", "In[3]")}
    shell = SimpleNamespace(compile=SimpleNamespace(format_code_name=names.get))
    ipython: Any = ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert place_in_cell(path) == "notebook cell In[3]:2"
    assert place_in_cell("/tmp/ipykernel_17/1.py") == "notebook cell:2"
    ipython.get_ipython = lambda: None
    assert place_in_cell(path) == "notebook cell:2"
    monkeypatch.delitem(sys.modules, "IPython")
    assert place_in_cell(path) == "notebook cell:2"
