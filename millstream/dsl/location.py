"""Where in the user's own code something was written."""

from __future__ import annotations

import sys
from pathlib import PurePath

_PACKAGE = str(PurePath(__file__).parent.parent) + "/"


def user_location() -> str:
    """Return `file:line` of the innermost frame outside the package.

    A notebook's cell has a made-up file name, so it is called as the notebook shows it:
    `notebook cell In[3]:2`. Returns `"unknown place"` when every frame is the package's own,
    as under the command line.
    """
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_PACKAGE):
            if "ipykernel" in path or path.startswith("<ipython-input"):
                return f"notebook cell{_cell_number(path)}:{frame.f_lineno}"
            return f"{path}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "unknown place"


def _cell_number(path: str) -> str:
    """Return ` In[3]` for the made-up file name of a cell, where the notebook knows it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    name = None if shell is None else shell.compile.format_code_name(path)
    return "" if name is None else f" {name[1]}"
