"""The verbs of a stream that give rows to functions of the user's own, and `limit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from millstream.dsl import keyed
from millstream.dsl.binding import named_type
from millstream.dsl.conditions import struct
from millstream.dsl.expressions import TypeName, col
from millstream.dsl.functions import Aggregate
from millstream.dsl.location import user_location
from millstream.dsl.shipping import changeable, unshippable, unshippable_object
from millstream.dsl.windows import duration_option
from millstream.errors import PlanError
from millstream.operators.process_function import ProcessFunction
from millstream.operators.reducer import Reducer, Row
from millstream.plan import nodes
from millstream.plan.changes import require_facts

if TYPE_CHECKING:
    from millstream.dsl.stream import Stream
    from millstream.dsl.windowed import TimedResult
    from millstream.log import Log

REDUCED = "__row"
"""Under which name rows that were combined come out of an aggregate."""


class FunctionVerbs:
    """What `Stream` has beside its other verbs."""

    __slots__ = ()

    if TYPE_CHECKING:
        node: nodes.Node
        log: Log

    def limit(self, n: int) -> Stream:
        """Keep the first `n` rows that come, whichever these are, in all runs of the job together.

        The rows of a table are limited by `top`, which says which ones.
        """
        location = user_location()
        if type(n) is not int or n < 0:
            message = f"{location}: limit keeps a number of rows; got {n!r}"
            raise PlanError(message)
        return _stream(nodes.Limit(self.node, n, location=location), self.log)

    def peek(self, function: Callable[[pa.RecordBatch], object]) -> Self:
        """Show each batch of rows to a function, and pass them on as they are.

        It is for a look, at a prompt or in a log: after a failure it is shown rows again, and how
        they are cut into batches is no promise. What it raises fails the job.

        Parameters
        ----------
        function
            Gets a `pyarrow.RecordBatch` of all columns; of changes, also their weights (+1 or -1)
            in the column `_weight`.
        """
        location = user_location()
        check_function(function, "peek", location)
        node = nodes.Peek(self.node, function, name_of(function), location=location)
        return replace(self, node=node)  # type: ignore[type-var]  # a stream is a dataclass

    def map_batches(
        self,
        function: Callable[[pa.RecordBatch], Any],
        schema: Mapping[str, TypeName] | pa.Schema | None = None,
        *,
        same_rows: bool = False,
    ) -> Stream:
        """Return what a function makes of the rows, batch by batch.

        How rows are cut into batches is no promise, so that what it makes of a row must not depend
        on the others. Then it is right over changes, too: what it made of a row is taken back with
        it. Rows on which it fails are treated as `on_error` of the run says.

        Parameters
        ----------
        function
            Gets a `pyarrow.RecordBatch`, and returns one with any number of rows, or what becomes
            one: a `pyarrow.Table`, a Polars or Pandas frame, a dictionary of columns.
        schema
            The names and types of its columns; by default they are the rows' own.
        same_rows
            Whether it returns a row for each one, in order, with keys and event time as they were
            where it returns them at all. Only then are the rows keyed and timed as before.

        Raises
        ------
        PlanError
            When the function cannot be sent to workers, or the rows may be taken back and it may
            give other rows then, for it reads a clock or draws random numbers.
        """
        location = user_location()
        check_function(function, "map_batches", location)
        result = self.node.schema if schema is None else named_schema(schema, location)
        name = name_of(function)
        made = nodes.MapBatches(self.node, function, name, result, same_rows, location=location)
        other = changeable(function) if made.takes_changes else None
        if other is not None:
            message = (
                f"{location}: {name} reads {other}, so that it may give other rows when one is "
                "taken back, and these are changes of a table; leave that out, or make a row of "
                "each change with .to_stream() before"
            )
            raise PlanError(message)
        return _stream(made, self.log)

    def reduce(
        self, function: Callable[[Row, Row], Mapping[str, Any]], *, ttl: str | timedelta = "never"
    ) -> Stream:
        """Combine all rows of a key so far into one, two by two, and keep it up to date.

        Of rows that are not keyed, all are combined. What comes out is a changelog, as of `agg`:
        the keys and the other columns. `.window(…).reduce(…)` does it for each window.

        Parameters
        ----------
        function
            Takes two rows, as dictionaries without the keys, and returns one of the same columns.
            It must not matter in which order rows are combined.
        ttl
            For how long after its newest row, in event time, a key is kept, as in `agg`.

        Examples
        --------
        `orders.key_by("customer").reduce(lambda a, b: a if a["price"] > b["price"] else b)`
        """
        location = user_location()
        keys = nodes.grouping_keys(self.node)
        reduced = reduced_rows(self.node, keys, function, location)
        node = keyed.running_aggregate(self.node, ttl, {REDUCED: reduced}, location)
        return with_columns_of_rows(_stream(node, self.log), self.node.schema, keys)

    def process(
        self,
        function: ProcessFunction | type[ProcessFunction],
        *,
        ttl: str | timedelta | None = None,
        order: Literal["time", "arrival"] | None = None,
    ) -> TimedResult:
        """Give the rows of each key, one by one, to a function that keeps state and sets timers.

        With event time a key's rows come in the order of their times, once the watermark has
        passed them, and a timer between the rows before and after its time: so the results depend
        on neither parallelism nor on which row arrived first. A result then has the event time of
        its row or timer, beside the key and the function's `output`. Rows behind the watermark are
        late: left out, counted, and in `.late()`. When a run ends, what waits is given to the
        function, and the timers that are set are called.

        Parameters
        ----------
        function
            Derived from `ms.ProcessFunction`; the class, or an instance of it.
        ttl
            How long after the last row or timer of a key, in event time, its state is forgotten;
            timers stay. `"never"` keeps it; so does `None`, with a warning where there is state.
        order
            `"time"`, the default with event time, or `"arrival"`: rows come at once, as they
            arrive, and the results have no event time; then timers come when the watermark has
            passed them, before or after rows that are as old.

        Raises
        ------
        PlanError
            When the rows are not keyed or may be taken back, or the function is none, cannot be
            sent to workers, or needs event time where there is none.
        """
        location = user_location()
        made, name = checked_process(function, location)
        node = self.node
        if not node.keys:
            message = (
                f"{location}: process keeps state by key; name it before with "
                f".key_by({node.schema.names[0]!r})"
            )
            raise PlanError(message)
        if order not in {None, "time", "arrival"}:
            message = f'{location}: order is "time" or "arrival"; got {order!r}'
            raise PlanError(message)
        if node.time_column is None:
            require_no_time(made, name, ttl, order, node, location)
        ttl_us = None
        if ttl is not None and ttl != "never":
            ttl_us = duration_option("ttl", ttl, location)
        state = named_schema(made.state, location) if made.state else pa.schema([])
        output = named_schema(made.output, location) if made.output else pa.schema([])
        in_order = node.time_column is not None and order != "arrival"
        processed = nodes.Process(
            node, node.keys, made, name, state, output, in_order, ttl_us, location=location
        )
        if ttl is None and len(state):
            keyed.warn_unbounded(
                location,
                f"{name} keeps state of every {', '.join(node.keys)} that ever comes",
                'forget it with ttl="7d", or say ttl="never"',
            )
        from millstream.dsl.windowed import TimedResult

        return TimedResult(processed, self.log)


def checked_process(function: object, location: str) -> tuple[ProcessFunction, str]:
    """Return the instance that a user gave, or gave the class of, and its name.

    Raises
    ------
    PlanError
        When it is none, has no `on_row`, or reads what cannot be sent to workers.
    """
    if isinstance(function, type) and issubclass(function, ProcessFunction):
        try:
            function = function()
        except TypeError as error:
            message = f"{location}: give process an instance of {name_of(function)}: {error}"
            raise PlanError(message) from error
    if not isinstance(function, ProcessFunction):
        message = f"{location}: process takes a ms.ProcessFunction; got {function!r}"
        raise PlanError(message)
    kind = type(function)
    if kind.on_row is ProcessFunction.on_row:
        message = f"{location}: {kind.__name__} has no on_row(self, row, context)"
        raise PlanError(message)
    outside = unshippable_object(function, ProcessFunction)
    if outside is not None:
        message = (
            f"{location}: {kind.__name__} reads {outside}, which cannot be sent to workers; make "
            "it inside the method, or give it a value that can be pickled"
        )
        raise PlanError(message)
    return function, kind.__name__


def require_no_time(
    function: ProcessFunction,
    name: str,
    ttl: str | timedelta | None,
    order: str | None,
    node: nodes.Node,
    location: str,
) -> None:
    """Check that nothing needs event time where rows have none; raises `PlanError`."""
    require_facts(node, location, "process")
    needing = {
        f"{name}.on_timer": type(function).on_timer is not ProcessFunction.on_timer,
        "a TTL": ttl not in {None, "never"},
        'order="time"': order == "time",
    }
    for what in (each for each, needs in needing.items() if needs):
        message = (
            f"{location}: {what} needs event time, and these rows have none; name the column "
            'where the stream begins, ms.stream(…, time="…"), and keep it in select'
        )
        raise PlanError(message)


def reduced_rows(
    node: nodes.Node,
    keys: tuple[str, ...],
    function: Callable[[Row, Row], Mapping[str, Any]],
    location: str,
) -> Aggregate:
    """Return the aggregate that combines the rows of a key.

    Raises
    ------
    PlanError
        When it is no function, cannot be sent, or the rows have nothing beside their key.
    """
    check_function(function, "reduce", location)
    require_facts(node, location, "reduce", "aggregate them with .agg(…), or ")
    fields = [each for each in node.schema if each.name not in keys]
    if not fields:
        message = f"{location}: reduce combines columns beside the key, and there are none"
        raise PlanError(message)
    rows = struct(**{each.name: col(each.name) for each in fields})
    names = frozenset(each.name for each in fields)
    reducer = Reducer(function, name_of(function), names)
    user = reducer.as_aggregate(pa.struct([(each.name, each.type) for each in fields]))
    return Aggregate("user", rows, location, user=user)


def with_columns_of_rows(stream: Stream, schema: pa.Schema, keys: tuple[str, ...]) -> Stream:
    """Return results with the columns of what `reduced_rows` gave, in place of that."""
    row = col(REDUCED).struct
    columns = {each: row.field(each) for each in schema.names if each not in keys}
    return stream.select(*(each for each in stream.schema.names if each != REDUCED), **columns)


def check_function(function: object, verb: str, location: str) -> None:
    """Check that `verb` was given a function that can be sent to workers.

    Raises
    ------
    PlanError
        When it was not; names what it reads that cannot.
    """
    if not callable(function):
        message = f"{location}: {verb} takes a function; got {function!r}"
        raise PlanError(message)
    outside = unshippable(function)
    if outside is not None:
        message = (
            f"{location}: {name_of(function)} reads {outside}, which cannot be sent to workers; "
            "make it inside the function, or give it a value that can be pickled"
        )
        raise PlanError(message)


def name_of(function: object) -> str:
    """Return what a function is called in messages."""
    name = getattr(function, "__name__", type(function).__name__)
    return "a lambda" if name == "<lambda>" else str(name)


def named_schema(schema: Mapping[str, TypeName] | pa.Schema, location: str) -> pa.Schema:
    """Return the columns that a user declared.

    Raises
    ------
    PlanError
        When they are none.
    ExpressionTypeError
        When there is no such type.
    """
    if isinstance(schema, pa.Schema):
        return schema
    if not isinstance(schema, Mapping) or not schema:
        message = f'{location}: a schema is e.g. {{"name": "string"}}; got {schema!r}'
        raise PlanError(message)
    for name in schema:
        if not isinstance(name, str):
            message = f"{location}: a column is named by a text; got {name!r}"
            raise PlanError(message)
    return pa.schema([(name, named_type(type_, location)) for name, type_ in schema.items()])


def _stream(node: nodes.Node, log: Log) -> Stream:
    from millstream.dsl.stream import Stream

    return Stream(node, log)
