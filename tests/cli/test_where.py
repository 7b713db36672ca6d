from __future__ import annotations

import pytest

from millstream.cli.where import parse_where
from millstream.errors import OptionError
from millstream.log.predicate import And, Comparison, IsIn, IsNull, Not, Or, Predicate

A = Comparison("a", "<", -3)
FLAG = Comparison("flag", "==", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<-3", A),
        ("a = 1.5e3", Comparison("a", "==", 1500.0)),
        ("a <> 'it''s'", Comparison("a", "!=", "it's")),
        ('"a b" >= false', Comparison("a b", ">=", False)),
        ("flag", FLAG),
        ("not flag or a < -3 and flag", Or((Not(FLAG), And((A, FLAG))))),
        ("(flag or a < -3) AND flag", And((Or((FLAG, A)), FLAG))),
        ("a in (1, 'x')", IsIn("a", (1, "x"))),
        ("a not in (1)", Not(IsIn("a", (1,)))),
        ("a is null and b is not null", And((IsNull("a"), Not(IsNull("b"))))),
        (
            "a between 1 and 2 and flag",
            And((And((Comparison("a", ">=", 1), Comparison("a", "<=", 2))), FLAG)),
        ),
    ],
)
def test_a_condition_is_read(text: str, expected: Predicate) -> None:
    assert parse_where(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at the end: a column"),
        ("a >", "at the end: a number"),
        ("a b", "at 'b': a comparison"),
        ("a = null", "at 'null': a number"),
        ("(a = 1", "at the end: ')'"),
        ("a = 1) or b", "at ') or b': and, or, or the end"),
        ("a = 12x", "at '12x': a column, a value or a sign"),
        ("a = 1 and or b", "at 'or b': a column"),
        ("a = 'x", 'at "\'x": a column, a value'),
    ],
)
def test_what_cannot_be_read_is_shown(text: str, words: str) -> None:
    with pytest.raises(OptionError) as raised:
        parse_where(text)
    assert words in str(raised.value)
