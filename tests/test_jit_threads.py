from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from numba.core import config as numba_config

from millstream import jit

config: Any = numba_config


def test_every_thread_finds_the_cache_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of one process load their kernels at the same time."""
    found: list[tuple[str, str]] = []

    def njit(**_: bool) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            start = config.CACHE_DIR
            time.sleep(0.001)  # lets the other threads on
            found.append((start, config.CACHE_DIR))
            return function

        return decorate

    monkeypatch.setattr(jit, "_njit", njit)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    threads = [threading.Thread(target=jit.kernel, args=(abs,)) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    place = str(jit.cache_directory())
    assert found == [(place, place)] * 16
    assert config.CACHE_DIR == ""
