"""Compiled kernels: their cache on disk, and whose it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import config as numba_config

from millstream import jit
from millstream.errors import OptionError
from millstream.storage_local import kernel_cache

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted(ROOT.glob("millstream/*/kernels/*.py"))
SOURCE = """\
import numpy as np


def double(values, out):
    for i in range(len(values)):
        out[i] = values[i] + values[i]
"""

config: Any = numba_config


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MILLSTREAM_CACHE", str(folder))
    kernel_cache.cache_directory.cache_clear()
    yield folder
    kernel_cache.cache_directory.cache_clear()


def test_the_cache_is_made_for_the_user_alone(cache: Path) -> None:
    assert kernel_cache.cache_directory() == cache
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_cache_that_others_may_write_is_refused(cache: Path, mode: int) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(OptionError, match=f"may be written by others; got mode {mode:04o}"):
        kernel_cache.cache_directory()


def test_a_cache_of_somebody_else_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    with pytest.raises(OptionError, match=f"owner {cache.stat().st_uid}"):
        kernel_cache.cache_directory()


def test_without_a_name_the_cache_is_in_the_home(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MILLSTREAM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernel_cache.cache_directory() == tmp_path / ".cache" / "millstream"


def test_a_generated_function_is_compiled_and_kept(cache: Path) -> None:
    # Its source is this test's own: a process loads each source once.
    text = SOURCE.replace("out[i] =", "out[len(out) - 1 - i] =")
    double = jit.load_generated(text, "double")
    out = np.zeros(3)
    double(np.array([1.0, 2.0, 3.0]), out)
    assert out.tolist() == [6.0, 4.0, 2.0]
    (source,) = cache.glob(f"{jit.GENERATED_PREFIX}*.py")
    assert source.read_text(encoding="utf-8") == text
    assert list(cache.rglob("*.nbc")), "machine code lies beside it"
    assert jit.load_generated(text, "double") is double
    assert list(cache.glob("*.tmp")) == []


def test_generated_functions_are_known_by_their_source(cache: Path) -> None:
    twice = jit.load_generated(SOURCE, "double")
    thrice = jit.load_generated(SOURCE.replace("+ values[i]", "* 3"), "double")
    for function, expected in ((twice, 4.0), (thrice, 6.0)):
        out = np.zeros(1)
        function(np.array([2.0]), out)
        assert out.tolist() == [expected]


def test_kernels_divide_as_numpy_does(cache: Path) -> None:
    @jit.kernel
    def divide(left: float, right: float) -> float:
        """Return the quotient."""
        return left / right

    assert divide(1.0, 0.0) == np.inf


def test_an_inner_function_belongs_to_the_kernels_that_call_it(cache: Path) -> None:
    @jit.inner
    def twice(value: int) -> Any:
        """Return the double."""
        return 2 * value

    @jit.kernel
    def four_times(value: int) -> Any:
        """Return the double's double."""
        return twice(twice(value))

    assert four_times(3) == 12
    assert [path for path in cache.rglob("*.nbi") if "twice" in path.name] == []


def same(value: int) -> int:
    """Return what is given."""
    return value


def test_every_thread_finds_the_cache_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers of one process load their kernels at the same time.
    found: list[tuple[str, str]] = []

    def quick_cache(_: Any) -> None:
        start = config.CACHE_DIR
        time.sleep(0.001)  # lets the other threads on
        found.append((start, config.CACHE_DIR))

    monkeypatch.setattr(jit, "_QuickCache", quick_cache)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    threads = [threading.Thread(target=jit.kernel, args=(same,)) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    place = str(kernel_cache.cache_directory())
    assert found == [(place, place)] * 16
    assert config.CACHE_DIR == "", "the user's own kernels keep their place"


PROCESS = """
import sys
import numpy as np
from millstream.jit import load_generated
out = np.zeros(2)
load_generated(sys.argv[1], "double")(np.ones(2), out)
assert out.tolist() == [2.0, 2.0]
"""


def test_processes_may_generate_the_same_at_once(cache: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, SOURCE], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    assert len(list(cache.glob("*.py"))) == 1


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_kernel_lies_unused(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    others = [each for each in ROOT.glob("millstream/**/*.py") if each != path]
    users = "".join(each.read_text(encoding="utf-8") for each in others)
    for name in re.findall(r"^@(?:kernel|inner)\ndef (\w+)", text, re.MULTILINE):
        uses = re.findall(rf"\b{name}\b", text + users)
        assert len(uses) > 1, f"{name} is used by nobody"


def test_describing_operators_leaves_numba_asleep() -> None:
    program = (
        "import sys, millstream.plan.compile; "
        "sys.exit(int('numba' in sys.modules or 'millstream.jit' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode == 0


LATER_PROCESS = """
import math
import sys
import numpy as np
from millstream.jit import load_generated
out = np.zeros(2)
load_generated(sys.argv[1], "root")(np.full(2, 9.0), out)
assert out.tolist() == [3.0 + math.sin(9.0)] * 2
prepared = "numba.np.linalg" in sys.modules
load_generated(sys.argv[1].replace("sin", "cos"), "root")(np.full(2, 9.0), out)
assert out.tolist() == [3.0 + math.cos(9.0)] * 2
print(prepared)
"""
ROOT_SOURCE = """
import math


def root(values, out):
    for i in range(len(values)):
        out[i] = math.sqrt(values[i]) + math.sin(values[i])
"""


def test_what_was_compiled_before_is_loaded_without_preparing_to_compile(cache: Path) -> None:
    # Twice with a cache that has the first kernel only: the other one is still compiled.
    prepared = []
    for _ in range(2):
        command = [sys.executable, "-c", LATER_PROCESS, ROOT_SOURCE]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        prepared.append(done.stdout.strip())
        for compiled in cache.rglob("*.nb?"):
            source = cache / f"{compiled.name.split('.')[0]}.py"
            if not source.exists() or "cos" in source.read_text(encoding="utf-8"):
                compiled.unlink()
    assert prepared == ["True", "False"]
