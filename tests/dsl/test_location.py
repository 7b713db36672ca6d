from __future__ import annotations

import sys

from millstream.dsl.expressions import col
from millstream.dsl.location import user_location


def here() -> str:
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def test_the_place_is_the_first_one_outside_the_package() -> None:
    assert (col("a") + 1).location == here()


def test_each_operator_has_the_line_where_it_was_written() -> None:
    first = col("a")
    second = first + 1
    lines = [int(each.location.rsplit(":", 1)[1]) for each in (first, second)]
    assert lines[1] == lines[0] + 1


def test_a_cell_of_a_notebook_is_called_one() -> None:
    scope: dict[str, object] = {"user_location": user_location}
    exec(compile("\nplace = user_location()", "/tmp/ipykernel_17/2901.py", "exec"), scope)
    assert scope["place"] == "notebook cell:2"
