"""Choosing between values: `when(…).then(…).otherwise(…)` and `coalesce`."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.dsl.expressions import Expression, to_expression
from millstream.dsl.location import user_location


@dataclass(frozen=True, slots=True)
class When:
    """A condition that waits for its value.

    Parameters
    ----------
    branches
        Conditions and values so far, alternating.
    condition
        The condition whose value comes next.
    """

    branches: tuple[Expression, ...]
    condition: Expression

    def then(self, value: object) -> Then:
        """Give the value of rows for which the condition holds."""
        chosen = to_expression(value, user_location())
        return Then((*self.branches, self.condition, chosen))


@dataclass(frozen=True, slots=True)
class Then:
    """Some branches of a choice; another may follow before `otherwise` closes it.

    Parameters
    ----------
    branches
        Conditions and values, alternating.
    """

    branches: tuple[Expression, ...]

    def when(self, condition: Expression) -> When:
        """Add a condition, tried where all before it do not hold."""
        return When(self.branches, to_expression(condition, user_location()))

    def otherwise(self, value: object) -> Expression:
        """Close the choice with the value of all other rows; `None` gives null."""
        location = user_location()
        arguments = (*self.branches, to_expression(value, location))
        return Expression("case", arguments, (), location)


def when(condition: Expression) -> When:
    """Begin a choice: the first condition that holds gives the value; null does not hold.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> when(col("delay") > 60).then("late").otherwise("fine")
    when(col("delay") > 60).then('late').otherwise('fine')
    """
    return When((), to_expression(condition, user_location()))


def coalesce(first: object, *others: object) -> Expression:
    """Return the first of several values that is not null.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> coalesce(col("arrived"), col("scheduled"))
    col("arrived").coalesce(col("scheduled"))
    """
    return to_expression(first, user_location()).call("coalesce", *others)
