"""In how many processes the tests run."""

from __future__ import annotations

import pytest

PROCESSES = 2


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return two for the whole suite; what is asked for by name runs in the process itself."""
    return PROCESSES if config.args_source is config.ArgsSource.TESTPATHS else 0
