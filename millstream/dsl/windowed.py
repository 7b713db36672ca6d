"""Streams cut into windows, and results of operators for which rows may be too late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from millstream.dsl import keyed
from millstream.dsl.function_verbs import REDUCED, reduced_rows, with_columns_of_rows
from millstream.dsl.functions import Aggregate
from millstream.dsl.location import user_location
from millstream.dsl.stream import Stream
from millstream.errors import PlanError
from millstream.operators.reducer import Row
from millstream.plan import nodes
from millstream.windows.assignment import AnyWindow
from millstream.windows.by_rows import Sliding


@dataclass(frozen=True, slots=True)
class WindowedStream:
    """A stream cut into windows; `agg` says what to compute in each.

    Parameters
    ----------
    stream
        The rows.
    window, allowed_lateness_us
        How event time is cut, and for how long a window takes rows after its end.
    emits_changes
        Whether results are given while windows are open.
    interval_us
        After every such interval of time; `None`: with every batch.
    """

    stream: Stream
    window: AnyWindow
    allowed_lateness_us: int
    emits_changes: bool = False
    interval_us: int | None = None

    def agg(self, /, **aggregates: Aggregate) -> TimedResult:
        """Compute a row for each key and window, given out when the window is over.

        Its columns are the keys, `window_start`, `window_end` and the results by keyword:
        `agg(flights=ms.count(), worst=ms.max("delay"))`. With `ms.sliding` there is a row for each
        row: its own columns, and the results.
        """
        return TimedResult(self._aggregate(aggregates, user_location()), self.stream.log)

    def reduce(self, function: Callable[[Row, Row], Mapping[str, Any]]) -> Stream:
        """Combine the rows of each key and window into one, two by two.

        Its columns are the keys, `window_start`, `window_end` and the rows' other ones. `function`
        is as for `stream.reduce`; late rows are left out, and counted.
        """
        location = user_location()
        node = self.stream.node
        if isinstance(self.window, Sliding):
            message = (
                f"{location}: reduce makes one row of those of a window, and with ms.sliding each "
                "row keeps its own columns; use agg, e.g. with ms.aggregate"
            )
            raise PlanError(message)
        reduced = reduced_rows(node, node.keys, function, location)
        found = Stream(self._aggregate({REDUCED: reduced}, location), self.stream.log)
        return with_columns_of_rows(found, node.schema, node.keys)

    def _aggregate(
        self, aggregates: Mapping[str, Aggregate], location: str
    ) -> nodes.WindowAggregate:
        return nodes.WindowAggregate(
            self.stream.node,
            self.stream.node.keys,
            self.window,
            keyed.bound_aggregates(aggregates, self.stream.schema, location),
            self.allowed_lateness_us,
            self.emits_changes,
            self.interval_us,
            location=location,
        )


@dataclass(frozen=True, slots=True)
class TimedResult(Stream):
    """The results of what goes by time, from which the rows that came too late can be had, too."""

    def late(self) -> Stream:
        """Return the rows that came when their window or key was over, as they were.

        Raises
        ------
        PlanError
            When no row can be late: nothing is over by time.
        """
        assert isinstance(self.node, nodes.Timed)
        return Stream(nodes.LateRows(self.node, location=user_location()), self.log)
