"""Streams: rows that flow, and the verbs that say what happens to them.

Every verb returns a new stream over a new plan node; nothing runs before `run` or `collect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self

import pyarrow as pa

from millstream.dsl import job, keyed
from millstream.dsl.binding import Scope, bind_boolean
from millstream.dsl.expressions import Expression
from millstream.dsl.function_verbs import FunctionVerbs
from millstream.dsl.functions import Aggregate
from millstream.dsl.location import user_location
from millstream.dsl.selection import condition, named_outputs
from millstream.dsl.sink import Sink, checked_name
from millstream.dsl.topics import check_sink, same_log
from millstream.dsl.windows import Every, duration_option
from millstream.errors import PlanError
from millstream.operators.expression import Call, Constant, TypedExpression
from millstream.operators.operator import ChangeMode
from millstream.plan import nodes
from millstream.plan.columns import (
    Outputs,
    check_same_columns,
    identity_outputs,
    require_column,
)
from millstream.windows.assignment import AnyWindow, RowWindow

if TYPE_CHECKING:
    from millstream.dsl.table import Table
    from millstream.dsl.windowed import TimedResult, WindowedStream
    from millstream.log import Log
    from millstream.plan.explain import Explanation


@dataclass(frozen=True, slots=True)
class Stream(FunctionVerbs):
    """Rows of one schema, in motion. Made by `ms.stream`; every verb returns another one.

    Parameters
    ----------
    node
        The plan's node whose rows these are.
    log
        The log that the job reads and writes.
    """

    node: nodes.Node
    log: Log

    @property
    def schema(self) -> pa.Schema:
        """The columns, with their types."""
        return self.node.schema

    def filter(self, *conditions: Expression) -> Stream:
        """Keep the rows for which all conditions hold; a null condition does not hold."""
        location, scope = user_location(), Scope(self.schema)
        node = self.node
        for each in conditions:
            predicate = bind_boolean(condition(each, location), scope, "a filter")
            node = nodes.Filter(node, predicate, location=location)
        return Stream(node, self.log)

    def select(self, /, *columns: str | Expression, **computed: object) -> Stream:
        """Return rows of just these columns, in order.

        Parameters
        ----------
        *columns
            Names, or expressions that have a name.
        **computed
            Expressions or constants under the keyword's name.
        """
        location = user_location()
        return self._project(named_outputs(self.schema, columns, computed, location), location)

    def map(self, /, *columns: str | Expression, **computed: object) -> Stream:
        """Return one computed row for each row; the same as `select`."""
        return self.select(*columns, **computed)

    def with_columns(self, /, *columns: Expression, **computed: object) -> Stream:
        """Return the rows with further columns; one of an old name takes its place."""
        location = user_location()
        outputs = dict(identity_outputs(self.schema))
        outputs.update(named_outputs(self.schema, columns, computed, location))
        return self._project(tuple(outputs.items()), location)

    def drop(self, *names: str) -> Stream:
        """Return the rows without the columns `names`."""
        location = user_location()
        for name in names:
            require_column(self.schema, name, location)
        kept = tuple(each for each in identity_outputs(self.schema) if each[0] not in names)
        return self._project(kept, location)

    def rename(self, names: Mapping[str, str]) -> Stream:
        """Return the rows with other column names: `{"old": "new"}`."""
        location = user_location()
        for name in names:
            require_column(self.schema, name, location)
        outputs = ((names.get(name, name), each) for name, each in identity_outputs(self.schema))
        return self._project(tuple(outputs), location)

    def explode(
        self, *columns: str, empty_as_null: bool = False, keep_nulls: bool = True
    ) -> Stream:
        """Return a row for each item of a list, with the other columns repeated.

        Parameters
        ----------
        *columns
            Lists; several are taken in lockstep, those of a row being as long as each other.
        empty_as_null, keep_nulls
            Whether a row whose list is empty, or null, stays, with null. As in Polars; in SQL's
            `UNNEST` neither does.
        """
        location = user_location()
        node = nodes.Explode(self.node, columns, empty_as_null, keep_nulls, location=location)
        return Stream(node, self.log)

    def flat_map(self, /, **lists: object) -> Stream:
        """Return many rows for one: a row for each item of a computed list, and none of no item.

        `flat_map(word=col("text").str.split(" "))` adds the column `word`. With a function of the
        user's own (`ms.udf`) that returns a list, perhaps of structs, it is a table function.
        """
        location = user_location()
        if not lists:
            message = f'{location}: flat_map needs a list, e.g. word=col("text").str.split(" ")'
            raise PlanError(message)
        node = self.with_columns(**lists).node
        exploded = nodes.Explode(node, tuple(lists), keep_nulls=False, location=location)
        return Stream(exploded, self.log)

    def key_by(self, /, *keys: str | Expression, **computed: object) -> Stream:
        """Return the rows keyed by columns; a computed key is added as a column.

        What follows is kept for each key: windows, and the partitions of a topic written to.
        """
        location = user_location()
        keyed = named_outputs(self.schema, keys, computed, location)
        if not keyed:
            message = f"{location}: key_by needs a column, e.g. key_by({self.schema.names[0]!r})"
            raise PlanError(message)
        present = dict(identity_outputs(self.schema))
        source = self
        if any(present.get(name) != each for name, each in keyed):
            source = self._project(tuple((present | dict(keyed)).items()), location)
        names = tuple(name for name, _ in keyed)
        return Stream(nodes.KeyBy(source.node, names, location=location), self.log)

    def window(
        self,
        window: AnyWindow,
        *,
        allowed_lateness: str | timedelta = "0s",
        emit: Literal["final", "changes"] | Every = "final",
    ) -> WindowedStream:
        """Cut event time into windows, for `.agg(…)` to compute a row for each key and window.

        Parameters
        ----------
        window
            E.g. `ms.tumbling("1h")`, `ms.hopping("10m", "1m")`, `ms.session("30m")`,
            `ms.sliding("10m")`, `ms.counting(100)`, `ms.global_window()`.
        allowed_lateness
            For how long after its end a window stays open for rows behind the watermark.
        emit
            `"final"` gives one row when a window is over. `"changes"` gives at once what each
            batch changes, until the window is over: a table of results by key and window.
            `ms.every("10s")` gives that for the changes of each ten seconds of the stream's time.

        Raises
        ------
        PlanError
            When the rows have no event time.
        """
        from millstream.dsl.windowed import WindowedStream

        location = user_location()
        if not isinstance(window, AnyWindow):
            message = f'{location}: window takes e.g. ms.tumbling("1h"); got {window!r}'
            raise PlanError(message)
        nodes.require_event_time(self.node, location)
        if not isinstance(emit, Every) and emit not in {"final", "changes"}:
            message = (
                f'{location}: emit is "final", "changes" or e.g. ms.every("10s"); got {emit!r}'
            )
            raise PlanError(message)
        if emit != "final" and isinstance(window, RowWindow):
            message = (
                f"{location}: {window.describe()} are given out once, when the watermark is beyond "
                f'their last row; leave out emit={emit!r}, or use e.g. ms.hopping("10m", "1m")'
            )
            raise PlanError(message)
        allowed_us = duration_option("allowed_lateness", allowed_lateness, location)
        interval_us = emit.interval_us if isinstance(emit, Every) else None
        return WindowedStream(self, window, allowed_us, emit != "final", interval_us)

    def join(
        self,
        table: Table,
        on: str | Sequence[str] | None = None,
        *,
        how: Literal["inner", "left"] = "inner",
        left_on: str | Sequence[str] | None = None,
        right_on: str | Sequence[str] | None = None,
    ) -> Stream:
        """Add the columns of the rows of `table` that have the same values in some columns.

        By the table's key, a row matches one row of the table or none. By a part of the key, or
        by other columns, it may match many: it goes out once with each, as in SQL.

        Parameters
        ----------
        table
            The table, with the latest row of each key. Its join columns are not repeated; all
            its other columns are added.
        on
            Names of the join columns, where both sides call them the same.
        how
            `"inner"` drops rows without a match; `"left"` keeps them, with nulls. A null
            matches nothing.
        left_on, right_on
            Instead of `on`: the names on this side and on the table's.

        Raises
        ------
        UnknownColumnError
            When a side lacks a join column.
        PlanError
            When no columns are joined or one twice, or both sides have another column.
        ExpressionTypeError
            When join columns are of different types, or of one that cannot be compared.
        """
        from millstream.dsl.table import table_source

        location = user_location()
        source = table_source(table, location)
        if how not in {"inner", "left"}:
            message = f'{location}: how is "inner" or "left"; got {how!r}'
            raise PlanError(message)
        log = same_log([self.log, table.log], location)
        mine, theirs = _names(on if left_on is None else left_on), _names(on or right_on)
        if not theirs or len(mine) != len(theirs) or len(set(theirs)) != len(theirs):
            message = (
                f"{location}: a join needs columns, each of the table's once and one of the "
                f"stream's for it; got {', '.join(mine) or 'nothing'} and "
                f"{', '.join(theirs) or 'nothing'} of table {source.topic!r}: "
                f'write e.g. on="{source.keys[0]}", or left_on= and right_on= where names differ'
            )
            raise PlanError(message)
        pairs = dict(zip(theirs, mine, strict=True))
        if pairs.keys() == set(source.keys):
            theirs = source.keys
        stream_keys = tuple(pairs[each] for each in theirs)
        joined = nodes.TableJoin(self.node, source, stream_keys, theirs, how, location=location)
        return Stream(joined, log)

    def union(self, *others: Stream) -> Stream:
        """Return the rows of this and other streams, which have the same columns in any order."""
        location = user_location()
        aligned: list[nodes.Node] = [self.node]
        for other in others:
            if not isinstance(other, Stream):
                message = f"{location}: union takes streams; got {type(other).__name__}"
                raise PlanError(message)
            check_same_columns(self.schema, other.schema, location)
            same = other.schema.names == self.schema.names
            ordered = other if same else other._project(identity_outputs(self.schema), location)
            aligned.append(ordered.node)
        log = same_log([self.log, *(each.log for each in others)], location)
        return Stream(nodes.Union(tuple(aligned), location=location), log)

    def branch(self, *conditions: Expression) -> list[Stream]:
        """Return a stream for each condition: a row goes to the first one that holds.

        Rows for which none holds go nowhere; give `lit(True)` last to have the rest.
        """
        location, scope = user_location(), Scope(self.schema)
        streams: list[Stream] = []
        earlier: TypedExpression | None = None
        for each in conditions:
            own = bind_boolean(condition(each, location), scope, "a branch")
            holds = Call("coalesce", (own, Constant(False, pa.bool_())), pa.bool_())
            if earlier is None:
                chosen, earlier = own, holds
            else:
                rest = Call("not", (earlier,), pa.bool_())
                chosen = Call("and", (own, rest), pa.bool_())
                earlier = Call("or", (earlier, holds), pa.bool_())
            streams.append(Stream(nodes.Filter(self.node, chosen, location=location), self.log))
        return streams

    def named(self, name: str) -> Self:
        """Give the last operator a name, by which its state is found after the job changed."""
        location = user_location()
        return replace(self, node=replace(self.node, name=checked_name(name, location)))

    def agg(self, /, *, ttl: str | timedelta | None = None, **aggregates: Aggregate) -> TimedResult:
        """Compute a row for each key over all of its rows so far, and keep it up to date.

        Its columns are the keys and the results by keyword: `agg(orders=ms.count())`. Rows that
        are not keyed are one group, and so are those of a table or of results, whose own key
        tells each from all others, until `key_by` groups them.

        What comes out is a changelog: each batch of rows gives out, for each key whose result is
        another one now, the old result as taken back and the new one. Rows of a table that are
        taken back are taken back from the results, too; a key without rows has no result.

        Parameters
        ----------
        ttl
            How long after its newest row, in event time, a key is forgotten: then its result is
            taken back, and a later row begins anew. A row that comes when its key may have been
            forgotten is late: it is counted, left out, and in `.late()`. `"never"` keeps every key;
            so does `None`, with a warning where nothing bounds how many keys there are.
        **aggregates
            What is computed, by the name of the result.
        """
        from millstream.dsl.windowed import TimedResult

        node = keyed.running_aggregate(self.node, ttl, aggregates, user_location())
        return TimedResult(node, self.log)

    def top(
        self,
        n: int,
        by: str | Expression | Sequence[str | Expression],
        *,
        ascending: bool = False,
        ties: bool = False,
        rank: str | None = None,
    ) -> Stream:
        """Keep the `n` rows of each key that are the greatest by some columns.

        What comes out is a changelog: a row that takes the place of another takes it back. Of a
        stream that is not keyed, and of a table until `key_by` groups it, these are the best of
        all rows.

        Parameters
        ----------
        n
            How many rows of a key.
        by
            Columns or expressions, the first of which counts most. Nulls come last.
        ascending
            Whether the least rows are wanted.
        ties
            Whether rows that are equal by all of these to the last one are kept, too, as
            `RANK() <= n` does in SQL. By default there are never more than `n`.
        rank
            A column to add with the place of each row among the best of its key, from 1 on, as
            `ROW_NUMBER()` in SQL. A row whose place changes is taken back and comes with the new
            one; key and place tell rows apart.

        Notes
        -----
        Of rows that are equal by all of these the earliest comes first, and of those of one time
        one that is always the same, whatever came first.
        """
        location = user_location()
        best = keyed.best_rows(self.node, n, by, ascending, ties, rank, location)
        return Stream(best, self.log)

    def dedup(self, *keys: str, within: str | timedelta | None = None) -> TimedResult:
        """Keep the first row of each key that comes, and leave out those that repeat it.

        Parameters
        ----------
        *keys
            Columns that tell rows apart; by default those that the stream is keyed by.
        within
            Rows repeat one that passed only if their event times are less than this apart; after
            that the key is forgotten, and the next row passes. Rows that come when what they might
            repeat may be forgotten are late: they are counted, do not pass, and are in `.late()`.
            `"ever"` remembers every key; so does `None`, with a warning.
        """
        from millstream.dsl.windowed import TimedResult

        return TimedResult(keyed.first_rows(self.node, keys, within, user_location()), self.log)

    def sample(self, fraction: float, *, seed: int = 0) -> Stream:
        """Keep about this part of the rows, chosen by a hash of their columns.

        The same rows are chosen in every run, and of equal rows all or none; of a table's changes
        what is taken back is what was kept.

        Parameters
        ----------
        fraction
            From 0 to 1.
        seed
            Another one chooses others.
        """
        location = user_location()
        if not 0 <= fraction <= 1:
            message = f"{location}: sample keeps a part of the rows, from 0 to 1; got {fraction!r}"
            raise PlanError(message)
        return self.filter(keyed.is_sampled(self.schema, fraction, seed, location))

    def to_table(self, key: str | Sequence[str] | None = None) -> Table:
        """Return the rows as a table: each one replaces the one before it of the same key.

        Parameters
        ----------
        key
            Columns that tell the table's rows apart; by default those that the stream is keyed
            by.

        Notes
        -----
        Where the stream has event time, the latest row of a key is the one of the greatest time;
        of equal times, and without event time, the one that came last.

        Raises
        ------
        PlanError
            When there is no key, or these are changes of which it may tell no row from another.
        """
        from millstream.dsl.table import Table

        location = user_location()
        keys = _names(key) or self.node.keys
        if not keys:
            message = f"{location}: a table needs a key, e.g. to_table({self.schema.names[0]!r})"
            raise PlanError(message)
        if self.node.mode is ChangeMode.APPEND:
            return Table(nodes.AsTable(self.node, keys, location=location), self.log)
        nodes.require_unique(self.node, keys, location, "to_table")
        return Table(nodes.KeyBy(self.node, keys, location=location), self.log)

    def to_stream(self) -> Stream:
        """Return a row for each change of a table, with what it is in the column `op`.

        `"+I"`: a row came; `"-U"`, `"+U"`: it replaced another, which stands before it; `"-D"`:
        it is gone.
        """
        location = user_location()
        if self.node.mode is ChangeMode.APPEND:
            message = (
                f"{location}: these rows are a stream already: none of them is ever taken back"
            )
            raise PlanError(message)
        return Stream(nodes.ChangeRows(self.node, "op", location=location), self.log)

    def to(
        self,
        topic: str,
        *,
        mode: Literal["append", "upsert", "changelog"] = "append",
        partitions: int | None = None,
    ) -> Sink:
        """Write the rows to a topic, which is made when it is not there.

        Parameters
        ----------
        topic
            The topic's name. It is keyed as the stream is.
        mode
            `"append"`: the rows as they are, which may not be changes of a table. `"upsert"`: the
            topic is a table with the latest row of each key, and a tombstone where it is gone.
            `"changelog"`: a row for each change, with its weight (+1 or -1) in the column
            `weight`.
        partitions
            For a new topic; by default as many as the job's largest source has.

        Raises
        ------
        SchemaMismatchError
            When the topic exists with other columns.
        PlanError
            When the rows cannot be written in this mode; names the remedy.
        """
        location = user_location()
        if partitions is not None and partitions < 1:
            message = f"{location}: a topic has at least 1 partition; got {partitions}"
            raise PlanError(message)
        if mode not in {"append", "upsert", "changelog"}:
            message = f'{location}: mode is "append", "upsert" or "changelog"; got {mode!r}'
            raise PlanError(message)
        node, keys = self.node, self.node.keys
        if mode == "changelog":
            node = nodes.ChangeRows(node, "weight", location=location)
        elif mode == "upsert":
            node, keys = keyed.upserts(node, self.log, topic, location)
        check_sink(self.log, topic, node.schema, location)
        sink = nodes.Sink(
            node,
            topic,
            keys,
            None if mode == "upsert" else node.time_column,
            partitions,
            upsert=mode == "upsert",
            location=location,
        )
        return Sink(sink, self.log)

    def collect(self) -> pa.Table:
        """Run the stream to the present end of its topics, and return its rows.

        It starts from the beginning each time and leaves no topic behind.
        """
        return job.collect(self.node, self.log)

    def explain(self, *, counters: bool = False, parallelism: int | None = None) -> Explanation:
        """Return what a job of this stream would do; in a notebook it draws.

        Parameters
        ----------
        counters
            Whether to show what each operator did in the last `collect()` of this stream.
        parallelism
            For how many workers; by default as many as the largest source has partitions.
        """
        return job.explain([job.memory_sink(self.node)], counters, parallelism, user_location())

    def __repr__(self) -> str:
        columns = ", ".join(f"{each.name}: {each.type}" for each in self.schema)
        kind = "stream" if self.node.mode is ChangeMode.APPEND else "changes"
        return f"{kind} ({columns})"

    def _repr_html_(self) -> str:
        return self.explain()._repr_html_()

    def _project(self, outputs: Outputs, location: str) -> Stream:
        return Stream(nodes.Project(self.node, outputs, location=location), self.log)


def _names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
