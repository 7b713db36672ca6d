"""Choosing between values: `when(…).then(…).otherwise(…)` and `coalesce`."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.dsl.expressions import Expression, col, to_expression
from millstream.dsl.location import user_location
from millstream.errors import PlanError


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
        location = user_location()
        chosen, other = to_expression(value, location), to_expression(None, location)
        return Then("case", (*self.branches, self.condition, chosen, other), (), location)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Then(Expression):
    """Some branches of a choice, which is null for all other rows until `otherwise` closes it."""

    def when(self, condition: Expression) -> When:
        """Add a condition, tried where all before it do not hold."""
        return When(self.arguments[:-1], to_expression(condition, user_location()))

    def otherwise(self, value: object) -> Expression:
        """Close the choice with the value of all other rows; `None` gives null."""
        location = user_location()
        arguments = (*self.arguments[:-1], to_expression(value, location))
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


def least(first: object, *others: object) -> Expression:
    """Return the least of several values, nulls left out.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> least(col("a"), col("b"), 0)
    col("a").least(col("b"), 0)
    """
    return to_expression(first, user_location()).call("least", *others)


def greatest(first: object, *others: object) -> Expression:
    """Return the greatest of several values, nulls left out.

    Examples
    --------
    >>> from millstream.dsl.expressions import col
    >>> greatest(col("a"), col("b"), 0)
    col("a").greatest(col("b"), 0)
    """
    return to_expression(first, user_location()).call("greatest", *others)


def hash(*values: object) -> Expression:  # noqa: A001  # used as ms.hash
    """Return the hash of several values together, as that of a key of several columns, uint64.

    Text names a column. It is the same everywhere, for ever (`log/FORMAT.md`, "Key hash").
    """
    location = user_location()
    columns = [col(each) if isinstance(each, str) else each for each in values]
    if not columns:
        message = f'{location}: hash needs a value, e.g. ms.hash("carrier", "flight")'
        raise PlanError(message)
    return to_expression(columns[0], location).call("hash", *columns[1:])


def struct(**fields: object) -> Expression:
    """Return a struct of values by name: `ms.struct(x=col("lon"), y=col("lat"))`."""
    location = user_location()
    if not fields:
        message = f'{location}: struct needs a field, e.g. ms.struct(x=col("lon"))'
        raise PlanError(message)
    arguments = tuple(to_expression(each, location) for each in fields.values())
    return Expression("struct.of", arguments, tuple((name, True) for name in fields), location)


def concat_str(first: object, *others: object, separator: str = "") -> Expression:
    """Return texts one after another, with `separator` between; null where one is null.

    Text names a column; `lit("…")` is a constant.
    """
    columns = [col(each) if isinstance(each, str) else each for each in (first, *others)]
    joined = to_expression(columns[0], user_location())
    for each in columns[1:]:
        joined = joined.call("add", to_expression(separator, user_location())).call("add", each)
    return joined


def random(seed: int = 0) -> Expression:
    """Return a number in [0, 1) for each row, float64.

    It depends on the seed and on the place at which the row was read (generation, partition and
    offset) alone: a job that goes on, at whatever parallelism, draws the same again. Rows that a
    `flat_map` makes of one have one number. Rows made of others, as by an aggregate, have none.

    Examples
    --------
    >>> random(seed=7) < 0.01
    random(7) < 0.01
    """
    location = user_location()
    if type(seed) is not int:
        message = f"{location}: a seed is an integer; got {seed!r}"
        raise PlanError(message)
    return Expression("random", (), (("seed", seed),), location)
