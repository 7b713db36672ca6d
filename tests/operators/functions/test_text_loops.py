"""What our own loops make of texts is what Arrow, with RE2, makes of them."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.operators.functions import text_loops
from millstream.operators.functions.texts import with_named_groups
from millstream.operators.plain_patterns import WAYS_MAX, plain_pattern
from millstream.operators.simplified import interned, simplified

LETTERS = "ab&=x1_ .\né€"
words = st.text(st.sampled_from(LETTERS), min_size=1, max_size=3)
TYPES = st.sampled_from([pa.string(), pa.large_string()])


@st.composite
def texts(draw: st.DrawFn, type_: pa.DataType | None = None) -> pa.Array:
    """A slice of a column of texts, some of them null, or longer than a loop's step."""
    short = st.text(st.sampled_from(LETTERS), max_size=20)
    each = st.none() | short | words.map(lambda word: word * 9)
    values = draw(st.lists(each, max_size=20))
    array = pa.array(values, type_ or draw(TYPES))
    return array.slice(draw(st.integers(0, len(values))))


@given(texts(), words)
def test_words_are_found_and_counted(text: pa.Array, word: str) -> None:
    assert text_loops.contains(text, word).equals(pc.match_substring(text, word))
    assert text_loops.count(text, word).equals(pc.count_substring(text, word).cast(pa.int64()))


@given(texts(), words, st.integers(0, 4))
def test_a_part_is_an_item_of_all_parts(text: pa.Array, separator: str, number: int) -> None:
    parts = pc.split_pattern(text, separator).to_pylist()
    expected = [None if x is None or len(x) <= number else x[number] for x in parts]
    found = text_loops.part(text, separator, number)
    found.validate(full=True)
    assert found.equals(pa.array(expected, text.type))


@pytest.mark.parametrize(
    ("quick", "arrow"),
    [(text_loops.lower, pc.utf8_lower), (text_loops.upper, pc.utf8_upper)],
)
@given(text=st.lists(st.none() | st.text(st.characters(max_codepoint=0x100))).map(pa.array))
@example(text=pa.array(["@AZ[`az{", None, "K\x7f"]))
def test_letters_change_their_case_or_are_left_to_arrow(
    quick: Callable[[pa.Array], pa.Array | None],
    arrow: Callable[[pa.Array], pa.Array],
    text: pa.Array,
) -> None:
    text = text.cast(pa.string()).slice(len(text) // 3)
    found = quick(text)
    assert (found is None) == any(not each.isascii() for each in text.to_pylist() if each)
    if found is not None:
        found.validate(full=True)
        assert found.equals(arrow(text))


CHARACTERS = ("a", "b", "&", "=", ".", "é", "[ab]", "[^&]", r"\d", r"\w", r"\S", r"\.", "[^\n]")
pieces = st.tuples(
    st.sampled_from(CHARACTERS), st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}"])
).map("".join)
sequences = st.lists(pieces, min_size=1, max_size=3).map("".join)
groups = st.lists(sequences | st.just(""), min_size=1, max_size=2).map(
    lambda ways: f"({'|'.join(ways)})"
)
patterns = st.tuples(
    st.sampled_from(["", "", "^", "(&|^)"]),
    st.lists(groups | sequences, min_size=1, max_size=3).map("".join),
    st.sampled_from(["", "", "$", "|b"]),
).map("".join)


@given(patterns, st.integers(0, 3), st.lists(texts(pa.string()), min_size=1, max_size=2))
@example("(&|^)id=([^&]*)", 2, [pa.array(["id=1&id=2", "x&id=", "xid=3", None, "&id=é€"])])
@example("a*$", 0, [pa.array(["baa", "aab", "é", ""])])
@example("(?:a|(?P<x>ab))(b)?", 1, [pa.array(["ab", "aab", "b"])])
def test_what_a_plain_pattern_matches_is_what_re2_does(
    pattern: str, group: int, columns: list[pa.Array]
) -> None:
    named, count = with_named_groups(f"({pattern})")
    group = min(group, count - 1)
    plain = plain_pattern(pattern, group)
    if plain is None:
        return
    for text in columns:
        expected = pc.struct_field(pc.extract_regex(text, named), f"g{group + 1}")
        found = text_loops.extract(text, plain)
        found.validate(full=True)
        assert found.equals(expected), (pattern, group, text, found, expected)
        assert text_loops.matches(text, plain).equals(pc.match_substring_regex(text, pattern))


@pytest.mark.parametrize(
    ("pattern", "is_plain"),
    [
        (r"(&|^)channel_id=([^&]*)", True),
        (r"^(\d{4})-(\d\d)$", True),
        (r"[\w.]+@", True),
        (r"a.*b", False),
        (r"(ab)*", False),
        (r"a*?b", False),
        (r"(?i)a", False),
        (r"\bword", False),
        (r"[[:alpha:]]", False),
        ("|".join(str(number) for number in range(WAYS_MAX + 1)), False),
    ],
)
def test_which_patterns_are_plain(pattern: str, is_plain: bool) -> None:
    assert (plain_pattern(pattern, 0) is not None) == is_plain


@given(st.data(), TYPES)
def test_a_choice_is_the_text_of_its_number(data: st.DataObject, type_: pa.DataType) -> None:
    column = data.draw(texts(type_))
    count = len(column)
    other = pa.array([data.draw(st.none() | words) for _ in range(count)], type_)
    choices = pa.array([data.draw(st.integers(0, 3)) for _ in range(count)], pa.int8())
    given_texts = [column, pa.scalar("one", type_), other, pa.scalar(None, type_)]
    found = text_loops.choose(choices, given_texts, type_)
    found.validate(full=True)
    assert found.equals(pc.choose(choices.cast(pa.int64()), *given_texts))


def test_a_simplified_expression_has_the_same_value() -> None:
    text, number = pa.string(), pa.int64()
    cut = Call("str.split", (Column("text", text),), pa.list_(text), (("pattern", "/"),))
    item = Call("list.get", (cut, Constant(1, number)), text)
    last = Call("list.get", (cut, Constant(-1, number)), text)
    equal = Call("equal", (item, Constant("b", text)), pa.bool_())
    always = Call("case", (Constant(True, pa.bool_()), last, item), text)
    either = Call("case", (equal, Constant("!", text), equal, last, Column("text", text)), text)
    batch = pa.record_batch({"text": ["a/b", "b", None, "a//c", "/b/"]})
    functions = []
    for each in (item, last, either, always):
        simple = simplified(each)
        assert isinstance(simple, Call)
        functions.append(simple.function)
        assert evaluate(simple, batch).equals(evaluate(each, batch))
    assert functions == ["str.split_part", "list.get", "str.choose", "str.choose"]


def test_equal_parts_become_one_unless_they_only_look_equal() -> None:
    number = pa.float64()

    def halved(by: float) -> TypedExpression:
        return Call("divide", (Column("x", number), Constant(by, number)), number)

    known: dict[tuple[TypedExpression, str], TypedExpression] = {}
    first, second, third = (interned(halved(by), known) for by in (0.0, 0.0, -0.0))
    assert first is second
    assert first is not third
