"""An event streaming platform: a partitioned log and a stream processor over Arrow columns.

The public names, nothing else. Each is imported when it is first used, so that
`import millstream` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream import errors, testing
    from millstream.dsl.conditions import (
        coalesce,
        concat_str,
        greatest,
        hash,  # noqa: A004  # used as ms.hash
        least,
        random,
        struct,
        when,
    )
    from millstream.dsl.expressions import Expression, col, lit
    from millstream.dsl.functions import (
        Aggregate,
        aggregate,
        approx_count_distinct,
        arg_max,
        arg_min,
        collect_list,
        collect_set,
        count,
        count_distinct,
        first,
        last,
        max,  # noqa: A004  # SQL's words
        mean,
        min,  # noqa: A004  # SQL's words
        quantile,
        std,
        sum,  # noqa: A004  # SQL's words
        top_k,
        var,
    )
    from millstream.dsl.job import run, submit
    from millstream.dsl.sink import Sink
    from millstream.dsl.source import processing_time, stream
    from millstream.dsl.stream import Stream
    from millstream.dsl.table import Table, table
    from millstream.dsl.user_functions import UserFunction, udf
    from millstream.dsl.windowed import TimedResult, WindowedStream
    from millstream.dsl.windows import (
        counting,
        every,
        global_window,
        hopping,
        session,
        sliding,
        tumbling,
    )
    from millstream.errors import MillstreamError, UserError
    from millstream.log import Log
    from millstream.operators.process_function import ProcessContext, ProcessFunction
    from millstream.plan.explain import Explanation
    from millstream.runtime.handle import JobHandle
    from millstream.runtime.result import RunResult

__version__ = "0.1.0"

__all__ = [
    "Log",
    "stream",
    "processing_time",
    "table",
    "run",
    "submit",
    "col",
    "lit",
    "when",
    "coalesce",
    "least",
    "greatest",
    "hash",
    "random",
    "struct",
    "concat_str",
    "udf",
    "UserFunction",
    "ProcessFunction",
    "ProcessContext",
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "var",
    "std",
    "quantile",
    "count_distinct",
    "approx_count_distinct",
    "first",
    "last",
    "arg_min",
    "arg_max",
    "collect_list",
    "collect_set",
    "top_k",
    "aggregate",
    "tumbling",
    "hopping",
    "session",
    "sliding",
    "counting",
    "global_window",
    "every",
    "Stream",
    "WindowedStream",
    "TimedResult",
    "Table",
    "Sink",
    "Expression",
    "Aggregate",
    "Explanation",
    "RunResult",
    "JobHandle",
    "errors",
    "testing",
    "MillstreamError",
    "UserError",
]

_MODULES = {
    "Log": "millstream.log",
    "stream": "millstream.dsl.source",
    "processing_time": "millstream.dsl.source",
    "table": "millstream.dsl.table",
    "run": "millstream.dsl.job",
    "submit": "millstream.dsl.job",
    "col": "millstream.dsl.expressions",
    "lit": "millstream.dsl.expressions",
    "when": "millstream.dsl.conditions",
    "coalesce": "millstream.dsl.conditions",
    "least": "millstream.dsl.conditions",
    "greatest": "millstream.dsl.conditions",
    "hash": "millstream.dsl.conditions",
    "random": "millstream.dsl.conditions",
    "struct": "millstream.dsl.conditions",
    "concat_str": "millstream.dsl.conditions",
    "udf": "millstream.dsl.user_functions",
    "UserFunction": "millstream.dsl.user_functions",
    "ProcessFunction": "millstream.operators.process_function",
    "ProcessContext": "millstream.operators.process_function",
    "count": "millstream.dsl.functions",
    "sum": "millstream.dsl.functions",
    "mean": "millstream.dsl.functions",
    "min": "millstream.dsl.functions",
    "max": "millstream.dsl.functions",
    "var": "millstream.dsl.functions",
    "std": "millstream.dsl.functions",
    "quantile": "millstream.dsl.functions",
    "count_distinct": "millstream.dsl.functions",
    "approx_count_distinct": "millstream.dsl.functions",
    "first": "millstream.dsl.functions",
    "last": "millstream.dsl.functions",
    "arg_min": "millstream.dsl.functions",
    "arg_max": "millstream.dsl.functions",
    "collect_list": "millstream.dsl.functions",
    "collect_set": "millstream.dsl.functions",
    "top_k": "millstream.dsl.functions",
    "aggregate": "millstream.dsl.functions",
    "tumbling": "millstream.dsl.windows",
    "hopping": "millstream.dsl.windows",
    "session": "millstream.dsl.windows",
    "sliding": "millstream.dsl.windows",
    "counting": "millstream.dsl.windows",
    "global_window": "millstream.dsl.windows",
    "every": "millstream.dsl.windows",
    "Stream": "millstream.dsl.stream",
    "WindowedStream": "millstream.dsl.windowed",
    "TimedResult": "millstream.dsl.windowed",
    "Table": "millstream.dsl.table",
    "Sink": "millstream.dsl.sink",
    "Expression": "millstream.dsl.expressions",
    "Aggregate": "millstream.dsl.functions",
    "Explanation": "millstream.plan.explain",
    "RunResult": "millstream.runtime.result",
    "JobHandle": "millstream.runtime.handle",
    "MillstreamError": "millstream.errors",
    "UserError": "millstream.errors",
}


def __getattr__(name: str) -> object:
    if name in {"errors", "testing"}:
        return importlib.import_module(f"millstream.{name}")
    if name not in _MODULES:
        message = f"module 'millstream' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
