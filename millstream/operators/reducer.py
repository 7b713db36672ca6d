"""Rows that are combined two by two into one, as an aggregate whose state is a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.aggregate import UserAggregate

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reducer:
    """Combines rows by a function.

    Parameters
    ----------
    function
        Takes two rows and returns one.
    name
        The function's, for messages.
    columns
        Of a row.
    """

    function: Callable[[Row, Row], Mapping[str, Any]]
    name: str
    columns: frozenset[str]

    def as_aggregate(self, type_: pa.DataType) -> UserAggregate:
        """Return it as an aggregate of rows of a struct type."""
        return UserAggregate(
            self.nothing, self.combine, self.combine, self.whole, type_, type_, self.name
        )

    def nothing(self) -> Row | None:
        """Return what is known before the first row."""
        return None

    def combine(self, one: Row | None, other: Row) -> Row:
        """Return one row for two; the first one as it is.

        Raises
        ------
        JobError
            Where the function gives no row, or one of other columns.
        """
        if one is None:
            return other
        made = self.function(one, other)
        if not isinstance(made, Mapping):
            message = f"{self.name} gave {made!r}, and not a row such as {one!r}"
            raise JobError(message)
        if made.keys() != self.columns:
            message = (
                f"{self.name} gave a row of {', '.join(map(str, made))}; a row has "
                f"{', '.join(sorted(self.columns))}"
            )
            raise JobError(message)
        return dict(made)

    def whole(self, state: Row) -> Row:
        """Return the result of a state: itself."""
        return state
