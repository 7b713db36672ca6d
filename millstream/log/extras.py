"""Libraries that only some reads need, imported where they are."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from millstream.errors import MissingExtraError


def import_extra(name: Literal["duckdb", "pandas", "polars"]) -> Any:
    """Return the library `name`, which is installed with the extra of the same name.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = (
            f"{name} is not installed ({error}); install the extra: "
            f"pip install 'millstream[{name}]'"
        )
        raise MissingExtraError(message) from error
