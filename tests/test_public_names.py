"""The public names: a new one is a change that somebody reviews."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import millstream as ms

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "Aggregate", "Explanation", "Expression", "JobHandle", "Log", "MillstreamError",
    "ProcessContext", "ProcessFunction", "RunResult", "Sink", "Stream", "Table", "TimedResult",
    "UserError", "UserFunction", "WindowedStream",
    "aggregate", "approx_count_distinct", "arg_max", "arg_min", "coalesce", "col", "collect_list",
    "collect_set", "concat_str", "count", "count_distinct", "counting", "errors", "every", "first",
    "global_window", "greatest", "hash", "hopping", "last", "least", "lit", "max", "mean", "min",
    "processing_time", "quantile", "random", "run", "session", "sliding", "std", "stream", "struct",
    "submit", "sum", "table", "testing", "top_k", "tumbling", "udf", "var", "when",
}  # fmt: skip


def test_the_public_names() -> None:
    assert set(ms.__all__) == NAMES
    assert len(ms.__all__) == len(NAMES)
    assert set(dir(ms)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_is_there(name: str) -> None:
    value = getattr(ms, name)
    assert value.__doc__
    assert getattr(ms, name) is value


def test_type_checkers_see_the_same_names() -> None:
    assert ms.__file__ is not None
    tree = ast.parse(Path(ms.__file__).read_text(encoding="utf-8"))
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    imports = [each for each in block.body if isinstance(each, ast.ImportFrom)]
    assert {alias.name for each in imports for alias in each.names} == NAMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'millstream' has no attribute 'river'"):
        _ = ms.river


def test_the_package_is_there_in_no_time() -> None:
    clock, took = time.perf_counter, []
    for _ in range(3):
        start = clock()
        subprocess.run([sys.executable, "-c", "import millstream"], check=True, cwd=ROOT)
        took.append(clock() - start)
    assert min(took) < 0.4


def test_building_a_job_needs_no_engine() -> None:
    program = (
        "import sys, millstream as ms; ms.col('a') > 1; ms.stream, ms.table, ms.run, ms.tumbling; "
        "sys.stdout.write(' '.join({'numba', 'duckdb', 'ray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
