"""How tests load the scripts in `jobs/`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

JOBS = Path(__file__).resolve().parent.parent.parent / "jobs"


def load(name: str) -> Any:
    """Return the script `jobs/<name>.py` as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).name, JOBS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
