"""Functions of text. Patterns are regular expressions of RE2, or literal where the call says so.

What loops of our own do faster is in `text_loops`; the rest is Arrow's, with RE2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.expression import Call
from millstream.operators.functions import text_loops
from millstream.operators.functions.function import Function, fitted, option, simple
from millstream.operators.plain_patterns import plain_pattern

_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_REFERENCE = re.compile(r"\$(?:(\$)|(\d)|\{(\d)\})")


def is_literal(pattern: str) -> bool:
    """Return `True` iff a regular expression means just its own characters."""
    return _SPECIAL.search(pattern) is None


def with_named_groups(pattern: str) -> tuple[str, int]:
    """Return a regular expression with every group named, as Arrow wants, and their number.

    Examples
    --------
    >>> with_named_groups(r"([(]a) (?:b)(?P<x>c)")
    ('(?P<g1>[(]a) (?:b)(?P<g2>c)', 2)
    """
    parts: list[str] = []
    count, index, in_class = 0, 0, False
    while index < len(pattern):
        here = pattern[index]
        if here == "\\":
            parts.append(pattern[index : index + 2])
            index += 2
            continue
        named = re.compile(r"\(\?P?<[A-Za-z_]\w*>").match(pattern, index)
        if in_class:
            in_class = here != "]"
        elif here == "[":
            in_class = True
            # A bracket that comes first in a class is a character of it.
            first = re.compile(r"\[\^?\]?").match(pattern, index)
            assert first is not None
            parts.append(first.group())
            index = first.end()
            continue
        elif here == "(" and (named is not None or not pattern.startswith("(?", index)):
            count += 1
            parts.append(f"(?P<g{count}>")
            index = index + 1 if named is None else named.end()
            continue
        parts.append(here)
        index += 1
    return "".join(parts), count


def _matching(literal: Callable[..., Any], regex: Callable[..., Any]) -> Function:
    def entry(values: list[Any], call: Call) -> Any:
        pattern = option(call, "pattern")
        plain = option(call, "literal") or is_literal(pattern)
        result = (literal if plain else regex)(values[0], pattern)
        return result if result.type == call.type else result.cast(call.type)

    return entry


def _contains_regex(text: pa.Array, pattern: str) -> pa.Array:
    plain = plain_pattern(pattern, 0)
    if plain is None:
        return pc.match_substring_regex(text, pattern)
    return text_loops.matches(text, plain)


def _count_literal(text: pa.Array, wanted: str) -> pa.Array:
    return text_loops.count(text, wanted) if wanted else pc.count_substring(text, wanted)


def _replace(values: list[Any], call: Call) -> Any:
    pattern, replacement = option(call, "pattern"), option(call, "replacement")
    count = option(call, "count")
    if option(call, "literal") or (is_literal(pattern) and "$" not in replacement):
        return pc.replace_substring(values[0], pattern, replacement, max_replacements=count)
    escaped = replacement.replace("\\", "\\\\")
    translated = _REFERENCE.sub(
        lambda found: "$" if found[1] else f"\\{found[2] or found[3]}", escaped
    )
    return pc.replace_substring_regex(values[0], pattern, translated, max_replacements=count)


def _extract(values: list[Any], call: Call) -> Any:
    group = option(call, "group")
    plain = plain_pattern(option(call, "pattern"), group)
    if plain is not None:
        return text_loops.extract(values[0], plain)
    pattern, _ = with_named_groups(option(call, "pattern"))
    if group == 0:
        pattern, _ = with_named_groups(f"({pattern})")
        group = 1
    found = pc.extract_regex(values[0], pattern)
    return pc.struct_field(found, f"g{group}").cast(call.type)


def _extract_all(values: list[Any], call: Call) -> Any:
    compiled = re.compile(option(call, "pattern"))
    found = [
        None if text is None else [each.group() for each in compiled.finditer(text)]
        for text in values[0].to_pylist()
    ]
    return pa.array(found, call.type)


def _slice(values: list[Any], call: Call) -> Any:
    start, length = option(call, "start"), option(call, "length")
    stop = None if length is None else start + length
    if start < 0 and stop is not None and stop >= 0:
        stop = None  # counted from the end: the slice reaches it
    return pc.utf8_slice_codeunits(values[0], start, stop)


def _strip(
    spaces: Callable[..., Any], characters: Callable[..., Any]
) -> Callable[[list[Any], Call], Any]:
    def entry(values: list[Any], call: Call) -> Any:
        wanted = option(call, "characters")
        return spaces(values[0]) if wanted is None else characters(values[0], wanted)

    return entry


def _strip_affix(values: list[Any], call: Call) -> Any:
    text, affix = values[0], option(call, "pattern")
    size = len(affix)
    if call.function == "str.strip_prefix":
        rest, has = pc.utf8_slice_codeunits(text, size), pc.starts_with(text, affix)
    else:
        # A stop of 0 from the end would be no character at all.
        rest = pc.utf8_slice_codeunits(text, 0, -size) if size else text
        has = pc.ends_with(text, affix)
    return pc.if_else(has, rest, text)


def _pad(pad: Callable[..., Any]) -> Function:
    return lambda values, call: pad(
        values[0], width=option(call, "width"), padding=option(call, "padding")
    )


def _split(values: list[Any], call: Call) -> Any:
    pattern = option(call, "pattern")
    plain = option(call, "literal") or is_literal(pattern)
    parts = (pc.split_pattern if plain else pc.split_pattern_regex)(values[0], pattern)
    return parts if parts.type == call.type else parts.cast(call.type)


def _split_part(values: list[Any], call: Call) -> Any:
    return text_loops.part(values[0], option(call, "pattern"), option(call, "number"))


def _case(
    quick: Callable[[pa.Array], pa.Array | None], general: Callable[[pa.Array], pa.Array]
) -> Function:
    def entry(values: list[Any], call: Call) -> Any:
        changed = quick(values[0])
        return general(values[0]) if changed is None else changed

    return entry


def _choose(values: list[Any], call: Call) -> Any:
    choices, *texts = values
    if isinstance(choices, pa.Scalar):
        return texts[choices.as_py()]
    return text_loops.choose(choices, texts, call.type)


def _concat(values: list[Any], call: Call) -> Any:
    separator = option(call, "separator") or ""
    if pat.is_binary(call.type) or pat.is_large_binary(call.type):
        separator = b""
    return pc.binary_join_element_wise(*values, pa.scalar(separator, call.type))


def _to_integer(values: list[Any], call: Call) -> Any:
    text, base = values[0], option(call, "base")
    results: list[int | None] = []
    for each in text.to_pylist():
        try:
            results.append(None if each is None else int(each, base))
        except ValueError as error:
            if option(call, "strict"):
                message = f"str.to_integer failed: {each!r} is no integer in base {base}"
                raise JobError(message) from error
            results.append(None)
    try:
        return pa.array(results, pa.int64())
    except OverflowError as error:
        message = f"str.to_integer failed: a number does not fit into int64 ({error})"
        raise JobError(message) from error


FUNCTIONS: dict[str, Function] = {
    "str.length": fitted(pc.utf8_length),
    "str.len_bytes": fitted(pc.binary_length),
    "str.upper": _case(text_loops.upper, pc.utf8_upper),
    "str.lower": _case(text_loops.lower, pc.utf8_lower),
    "str.title": simple(pc.utf8_title),
    "str.reverse": simple(pc.utf8_reverse),
    "str.strip": _strip(pc.utf8_trim_whitespace, pc.utf8_trim),
    "str.strip_start": _strip(pc.utf8_ltrim_whitespace, pc.utf8_ltrim),
    "str.strip_end": _strip(pc.utf8_rtrim_whitespace, pc.utf8_rtrim),
    "str.strip_prefix": _strip_affix,
    "str.strip_suffix": _strip_affix,
    "str.contains": _matching(text_loops.contains, _contains_regex),
    "str.count": _matching(_count_literal, pc.count_substring_regex),
    "str.starts_with": lambda values, call: pc.starts_with(values[0], option(call, "pattern")),
    "str.ends_with": lambda values, call: pc.ends_with(values[0], option(call, "pattern")),
    "str.slice": _slice,
    "str.replace": _replace,
    "str.extract": _extract,
    "str.extract_all": _extract_all,
    "str.split": _split,
    "str.split_part": _split_part,
    "str.choose": _choose,
    "str.pad_start": _pad(pc.utf8_lpad),
    "str.pad_end": _pad(pc.utf8_rpad),
    "str.zfill": lambda values, call: pc.utf8_zero_fill(values[0], width=option(call, "width")),
    "str.concat": _concat,
    "str.to_integer": _to_integer,
}
