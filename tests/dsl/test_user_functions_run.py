"""Users' functions in jobs that run: on the log, in explain, with counters."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import millstream as ms
from millstream import col
from millstream.errors import PythonFallbackWarning
from millstream.log import Log


@ms.udf
def squared(n: int) -> int:
    return n * n


@ms.udf(returns="string")
def spelt(n: int) -> str:
    return f"<{n}>"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    log.create_topic("numbers", pa.schema({"n": pa.int64(), "text": pa.string()}), partitions=2)
    with log.producer("numbers") as producer:
        producer.append(
            pa.table({"n": [1, 2, None, 4], "text": ["a b", "", None, "c"]}).to_batches()[0]
        )
    return log


def test_a_job_with_functions_says_what_python_does(log: Log) -> None:
    numbers = ms.stream("numbers", log=log).filter(col("n") > 1)
    with pytest.warns(PythonFallbackWarning, match=r"spelt is called by Python .*it gives string"):
        rows = numbers.with_columns(square=squared(col("n")), word=spelt(col("n")))
    assert sorted(rows.collect()["square"].to_pylist()) == [4, 16]
    text = str(rows.explain(counters=True))
    assert "through Python, row after row: spelt: it gives string" in text
    assert "square = squared(n)" in text
    assert "Numba 4, pyarrow 4, Python 2" in text
    words = ms.stream("numbers", log=log).flat_map(word=col("text").str.split(" "))
    assert sorted(words.collect()["word"].to_pylist()) == ["", "a", "b", "c"]
