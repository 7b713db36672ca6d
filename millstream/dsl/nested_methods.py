"""The `.list`, `.struct` and `.map` sides of an expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.dsl.expressions import Expression


@dataclass(frozen=True, slots=True)
class ListMethods:
    """Functions on lists; a null list gives null. Aggregates leave out nulls among the items.

    Parameters
    ----------
    expression
        An expression of a list type.
    """

    expression: Expression

    def len(self) -> Expression:
        """Return the number of items, int64."""
        return self.expression.call("list.len")

    def get(self, index: int | Expression) -> Expression:
        """Return item `index`, -1 being the last; null where there is none."""
        return self.expression.call("list.get", index)

    def first(self) -> Expression:
        """Return the first item; null where there is none."""
        return self.expression.call("list.get", 0)

    def last(self) -> Expression:
        """Return the last item; null where there is none."""
        return self.expression.call("list.get", -1)

    def contains(self, item: object) -> Expression:
        """Return whether an item equals `item`, a constant or an expression; null for null."""
        return self.expression.call("list.contains", item)

    def sum(self) -> Expression:
        """Return the sum of numbers: of integers in int64, which wraps; of none 0."""
        return self.expression.call("list.sum")

    def mean(self) -> Expression:
        """Return the arithmetic mean of numbers, float64; null of none."""
        return self.expression.call("list.mean")

    def min(self) -> Expression:
        """Return the least item; null of none."""
        return self.expression.call("list.min")

    def max(self) -> Expression:
        """Return the greatest item; null of none."""
        return self.expression.call("list.max")

    def join(self, separator: str) -> Expression:
        """Return the texts one after another, with `separator` between; nulls are left out."""
        return self.expression.call("list.join", separator=separator)

    def unique(self) -> Expression:
        """Return the different items, each where it came first."""
        return self.expression.call("list.unique")

    def sort(self, *, descending: bool = False, nulls_last: bool = False) -> Expression:
        """Return the items in order."""
        return self.expression.call("list.sort", descending=descending, nulls_last=nulls_last)

    def reverse(self) -> Expression:
        """Return the items from the last to the first."""
        return self.expression.call("list.reverse")

    def slice(self, offset: int, length: int | None = None) -> Expression:
        """Return `length` items from place `offset` on (-1 is the last), or all the rest."""
        return self.expression.call("list.slice", start=offset, length=length)

    def head(self, n: int) -> Expression:
        """Return the first `n` items."""
        return self.expression.call("list.slice", start=0, length=n)

    def tail(self, n: int) -> Expression:
        """Return the last `n` items."""
        return self.expression.call("list.slice", start=-n, length=None)


@dataclass(frozen=True, slots=True)
class StructMethods:
    """Functions on structs; a null struct gives null.

    Parameters
    ----------
    expression
        An expression of a struct type.
    """

    expression: Expression

    def field(self, name: str) -> Expression:
        """Return the field `name`."""
        return self.expression.call("struct.field", name=name)

    def __getitem__(self, name: str) -> Expression:
        return self.field(name)


@dataclass(frozen=True, slots=True)
class MapMethods:
    """Functions on maps; a null map gives null.

    Parameters
    ----------
    expression
        An expression of a map type.
    """

    expression: Expression

    def get(self, key: object) -> Expression:
        """Return the value of a key, a constant; null where there is none. The last one counts."""
        return self.expression.call("map.get", key=key)

    def keys(self) -> Expression:
        """Return the list of the keys."""
        return self.expression.call("map.keys")

    def values(self) -> Expression:
        """Return the list of the values."""
        return self.expression.call("map.values")

    def len(self) -> Expression:
        """Return the number of entries, int64."""
        return self.expression.call("map.len")
