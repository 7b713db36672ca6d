"""The `.str` side of an expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from millstream.dsl.expressions import Expression, TypeName


@dataclass(frozen=True, slots=True)
class StringMethods:
    """Functions on text; null stays null. Positions and lengths count characters.

    A pattern is a regular expression of RE2 (no look-around, no references back), or its own
    characters with `literal=True`.

    Parameters
    ----------
    expression
        An expression of type string.
    """

    expression: Expression

    def len_chars(self) -> Expression:
        """Return the number of characters, int64."""
        return self.expression.call("str.length")

    def length(self) -> Expression:
        """Return the number of characters, int64; the same as `len_chars`."""
        return self.expression.call("str.length")

    def len_bytes(self) -> Expression:
        """Return the number of bytes in UTF-8, int64."""
        return self.expression.call("str.len_bytes")

    def to_uppercase(self) -> Expression:
        """Return the text in upper case."""
        return self.expression.call("str.upper")

    def upper(self) -> Expression:
        """Return the text in upper case; the same as `to_uppercase`."""
        return self.expression.call("str.upper")

    def to_lowercase(self) -> Expression:
        """Return the text in lower case."""
        return self.expression.call("str.lower")

    def lower(self) -> Expression:
        """Return the text in lower case; the same as `to_lowercase`."""
        return self.expression.call("str.lower")

    def to_titlecase(self) -> Expression:
        """Return the text with each word's first letter in upper case, the others in lower."""
        return self.expression.call("str.title")

    def reverse(self) -> Expression:
        """Return the characters from the last to the first."""
        return self.expression.call("str.reverse")

    def strip_chars(self, characters: str | None = None) -> Expression:
        """Return the text without white space, or without `characters`, at both ends."""
        return self.expression.call("str.strip", characters=characters)

    def strip(self) -> Expression:
        """Return the text without white space at both ends; the same as `strip_chars()`."""
        return self.expression.call("str.strip", characters=None)

    def strip_chars_start(self, characters: str | None = None) -> Expression:
        """Return the text without white space, or without `characters`, where it begins."""
        return self.expression.call("str.strip_start", characters=characters)

    def strip_chars_end(self, characters: str | None = None) -> Expression:
        """Return the text without white space, or without `characters`, where it ends."""
        return self.expression.call("str.strip_end", characters=characters)

    def strip_prefix(self, prefix: str) -> Expression:
        """Return the text without `prefix`, if it begins with it."""
        return self.expression.call("str.strip_prefix", pattern=prefix)

    def strip_suffix(self, suffix: str) -> Expression:
        """Return the text without `suffix`, if it ends with it."""
        return self.expression.call("str.strip_suffix", pattern=suffix)

    def contains(self, pattern: str, *, literal: bool = False) -> Expression:
        """Return whether `pattern` occurs in the text."""
        return self.expression.call("str.contains", pattern=pattern, literal=literal)

    def count_matches(self, pattern: str, *, literal: bool = False) -> Expression:
        """Return how often `pattern` occurs, without overlaps, int64."""
        return self.expression.call("str.count", pattern=pattern, literal=literal)

    def starts_with(self, prefix: str) -> Expression:
        """Return whether the text begins with `prefix`, taken literally."""
        return self.expression.call("str.starts_with", pattern=prefix)

    def ends_with(self, suffix: str) -> Expression:
        """Return whether the text ends with `suffix`, taken literally."""
        return self.expression.call("str.ends_with", pattern=suffix)

    def slice(self, offset: int, length: int | None = None) -> Expression:
        """Return `length` characters from position `offset` on, or all the rest.

        0 is the first character; -1 the last one, -2 that before it.
        """
        return self.expression.call("str.slice", start=offset, length=length)

    def head(self, n: int) -> Expression:
        """Return the first `n` characters."""
        return self.expression.call("str.slice", start=0, length=n)

    def tail(self, n: int) -> Expression:
        """Return the last `n` characters."""
        return self.expression.call("str.slice", start=-n, length=n)

    def replace(self, pattern: str, value: str, *, literal: bool = False, n: int = 1) -> Expression:
        """Return the text with the first `n` occurrences of `pattern` replaced.

        In `value`, `$1` (or `${1}`) stands for what group 1 of the pattern matched, `$$` for a
        dollar; not with `literal=True`.
        """
        return self.expression.call(
            "str.replace", pattern=pattern, replacement=value, literal=literal, count=n
        )

    def replace_all(self, pattern: str, value: str, *, literal: bool = False) -> Expression:
        """Return the text with every occurrence of `pattern` replaced; see `replace`."""
        return self.expression.call(
            "str.replace", pattern=pattern, replacement=value, literal=literal, count=None
        )

    def extract(self, pattern: str, group_index: int = 1) -> Expression:
        """Return what a group of `pattern` matched first (0: all of it); null without a match."""
        return self.expression.call("str.extract", pattern=pattern, group=group_index)

    def extract_all(self, pattern: str) -> Expression:
        """Return the list of all that `pattern` (of Python's `re`) matched, without overlaps."""
        return self.expression.call("str.extract_all", pattern=pattern)

    def split(self, by: str, *, literal: bool = True) -> Expression:
        """Return the list of the parts between occurrences of `by`."""
        return self.expression.call("str.split", pattern=by, literal=literal)

    def pad_start(self, length: int, fill_char: str = " ") -> Expression:
        """Return the text with `fill_char` in front until it has `length` characters."""
        return self.expression.call("str.pad_start", width=length, padding=fill_char)

    def pad_end(self, length: int, fill_char: str = " ") -> Expression:
        """Return the text with `fill_char` behind until it has `length` characters."""
        return self.expression.call("str.pad_end", width=length, padding=fill_char)

    def zfill(self, length: int) -> Expression:
        """Return the text with zeros in front, behind a sign, until it has `length` characters."""
        return self.expression.call("str.zfill", width=length)

    def to_integer(self, *, base: int = 10, strict: bool = True) -> Expression:
        """Return the integer that the text writes, int64; one that is none fails its row.

        Parameters
        ----------
        base
            From 2 to 36. All but 10 are read by Python.
        strict
            `False`: null for a text that is no integer.
        """
        return self.expression.call("str.to_integer", base=base, strict=strict)

    def to_datetime(
        self,
        format: str | None = None,  # noqa: A002  # as in Polars
        *,
        time_unit: Literal["s", "ms", "us", "ns"] = "us",
        time_zone: str | None = "UTC",
        strict: bool = True,
    ) -> Expression:
        """Return the moment that the text writes.

        Parameters
        ----------
        format
            As for C's `strptime`, e.g. `"%d.%m.%Y %H:%M"`, with `%f` for a fraction of a second;
            by default ISO 8601.
        time_zone
            Of the result. A text without a zone is in UTC. `None`: a time without a zone.
        strict
            `False`: null for a text that is not of the format.
        """
        options = {"unit": time_unit, "zone": time_zone, "strict": strict}
        return self.expression.call("str.to_datetime", format=format, **options)

    def to_date(
        self,
        format: str | None = None,  # noqa: A002  # as in Polars
        *,
        strict: bool = True,
    ) -> Expression:
        """Return the day that the text writes; see `to_datetime`."""
        return self.expression.call("str.to_date", format=format, strict=strict)

    def json(
        self,
        path: str = "$",
        type: TypeName = "string",  # noqa: A002  # what it is
        *,
        strict: bool = True,
    ) -> Expression:
        """Return the value at a path of JSON text, e.g. `.str.json("$.user.ids[0]", "int64")`.

        A path that is not there gives null, and so does JSON's null; where a name occurs twice,
        the first counts. Text is given without its quotes, an object as the JSON that it is
        written in.

        Parameters
        ----------
        path
            Names and indices: `$.a.b[0]`, `$.a['b c']`.
        type
            Of the result; a list or struct is read by Python.
        strict
            `False`: null for what is no JSON or no such value, instead of a failure of the row.
        """
        return self.expression.call("str.json", path=path, type=type, strict=strict)

    def json_path_match(self, json_path: str) -> Expression:
        """Return the value at a path of JSON text as text; null where there is none."""
        return self.expression.call("str.json", path=json_path, type="string", strict=False)
