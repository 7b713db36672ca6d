"""Expressions that need to know where a row was read, and which rows know it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from millstream.errors import PlanError
from millstream.operators.expression import TypedExpression, columns_of
from millstream.operators.operator import POSITION_COLUMN, ChangeMode

if TYPE_CHECKING:
    from millstream.plan.sources import PlanNode


def require_positions(
    node: PlanNode, expressions: Iterable[TypedExpression], location: str
) -> None:
    """Check that rows of `node` know where they were read, if `expressions` need it.

    Raises
    ------
    PlanError
        When they were made of others, as by an aggregate, or are changes of a table.
    """
    if not any(POSITION_COLUMN in columns_of(each) for each in expressions):
        return
    from millstream.plan import nodes

    passed = nodes.Filter | nodes.Project | nodes.Fused | nodes.KeyBy | nodes.Explode | nodes.Peek
    passed |= nodes.Limit
    waiting = [node]
    while waiting:
        match each := waiting.pop():
            case nodes.StreamSource() if each.mode is ChangeMode.APPEND:
                pass
            case nodes.TableJoin():
                waiting.append(each.stream)
            case nodes.Union():
                waiting.extend(each.streams)
            case _ if isinstance(each, passed):
                waiting.append(each.input)
            case _:
                message = (
                    f"{location}: a random number comes from the place at which a row was read, "
                    "and these rows were made of others or are changes; draw it before, with "
                    ".with_columns(…=ms.random())"
                )
                raise PlanError(message)
