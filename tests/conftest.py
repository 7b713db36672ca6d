"""What holds for all tests: how examples are made, and which tests one process runs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Readline sets it for child processes, so for those of pytest-xdist: what is printed would be cut.
os.environ.pop("COLUMNS", None)

# How long an example takes says more about the machine and who else uses it than about the code.
settings.register_profile("millstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("millstream")

ON_RAY = re.compile(r"(?<![a-z])ray(?![a-z])")
TOGETHER = {"tests/test_readme.py", "tests/notebooks/test_notebooks.py"}
"""Files whose tests share what is dear to make."""


def group_of(test: str) -> str:
    """Return what one process runs as a whole: all tests on Ray, some files, or a single test."""
    file = test.partition("::")[0]
    if ON_RAY.search(test):
        return "ray"
    return file if file in TOGETHER else test


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuse tests on Ray that do not say so in their names: who shares tests out sees no marks."""
    for item in items:
        if item.get_closest_marker("ray") is not None and group_of(item.nodeid) != "ray":
            message = f"{item.nodeid} is marked 'ray'; say so in its name or its file's"
            raise pytest.UsageError(message)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Return who gives each process the next group when it has time for it, the largest first.

    Not `--dist=loadgroup`: that of pytest-xdist 3.8 tells no group from another with pytest 9.2.
    """
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = group_of
    return scheduling
