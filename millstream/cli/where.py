"""`--where`: a condition on rows as one writes it in SQL, e.g. `delay > 60 and carrier = 'AA'`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from millstream.errors import OptionError

if TYPE_CHECKING:
    from millstream.log.predicate import Predicate

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | '(?P<text>(?:[^']|'')*)'
    | "(?P<quoted>(?:[^"]|"")*)"
    | (?P<word>[^\W\d]\w*)
    | (?P<sign><=|>=|<>|!=|==|[=<>(),])
    )""",
    re.VERBOSE,
)
_COMPARISONS = {"=", "==", "!=", "<>", "<", "<=", ">", ">="}
_WORDS = {"and", "or", "not", "in", "is", "null", "between", "true", "false"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: str
    position: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.value.lower() == word


def parse_where(text: str) -> Predicate:
    """Return the condition that `text` says.

    Comparisons, `in (…)`, `between … and …`, `is [not] null`, `and`, `or`, `not` and
    parentheses. Values are numbers, true, false and text in single quotes, times too.

    Raises
    ------
    OptionError
        Where it cannot be read; shows the place.

    Examples
    --------
    >>> parse_where("delay > 60 and not carrier in ('AA')").parts[0]
    Comparison(column='delay', operator='>', value=60)
    """
    parser = _Parser(text)
    found = parser.either()
    parser.end()
    return found


class _Parser:
    """Reads tokens from left to right; each method reads what its name says."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0

    def either(self) -> Predicate:
        from millstream.log.predicate import Or

        parts = [self._all()]
        while self._take_word("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def end(self) -> None:
        if self._token().kind != "end":
            self._refuse("and, or, or the end")

    def _all(self) -> Predicate:
        from millstream.log.predicate import And

        parts = [self._one()]
        while self._take_word("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Predicate:
        from millstream.log.predicate import Not

        if self._take_word("not"):
            return Not(self._one())
        if self._take_sign("("):
            found = self.either()
            self._expect_sign(")")
            return found
        return self._condition(self._column())

    def _condition(self, column: str) -> Predicate:
        from millstream.log.predicate import And, Comparison, IsIn, IsNull, Not, where_to_predicate

        token = self._token()
        if token.kind == "sign" and token.value in _COMPARISONS:
            self._next += 1
            return where_to_predicate((column, token.value, self._value()))
        if self._take_word("is"):
            negative = self._take_word("not")
            self._expect_word("null")
            return Not(IsNull(column)) if negative else IsNull(column)
        negative = self._take_word("not")
        found: Predicate
        if self._take_word("between"):
            least = self._value()
            self._expect_word("and")
            found = And((Comparison(column, ">=", least), Comparison(column, "<=", self._value())))
        elif self._take_word("in"):
            found = IsIn(column, tuple(self._values()))
        elif not negative and (token.kind == "end" or token.value.lower() in {"and", "or", ")"}):
            return Comparison(column, "==", True)
        else:
            self._refuse("a comparison, in, between or is")
        return Not(found) if negative else found

    def _values(self) -> list[object]:
        self._expect_sign("(")
        values = [self._value()]
        while self._take_sign(","):
            values.append(self._value())
        self._expect_sign(")")
        return values

    def _column(self) -> str:
        token = self._token()
        is_name = token.kind == "word" and token.value.lower() not in _WORDS
        if not is_name and token.kind != "quoted":
            self._refuse("a column")
        self._next += 1
        return token.value

    def _value(self) -> object:
        token = self._token()
        self._next += 1
        if token.kind == "text":
            return token.value
        if token.kind == "number":
            is_integer = re.fullmatch(r"[+-]?\d+", token.value) is not None
            return int(token.value) if is_integer else float(token.value)
        if token.is_word("true") or token.is_word("false"):
            return token.is_word("true")
        self._next -= 1
        self._refuse("a number, true, false or a text in single quotes")

    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take_word(self, word: str) -> bool:
        found = self._token().is_word(word)
        self._next += found
        return found

    def _take_sign(self, sign: str) -> bool:
        token = self._token()
        found = token.kind == "sign" and token.value == sign
        self._next += found
        return found

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            self._refuse(word)

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            self._refuse(f"{sign!r}")

    def _refuse(self, expected: str) -> NoReturn:
        raise _error(self._text, self._token().position, expected)


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error(text, position, "a column, a value or a sign")
        kind = match.lastgroup
        assert kind is not None, text
        value = match[kind]
        if kind == "text":
            value = value.replace("''", "'")
        elif kind == "quoted":
            value = value.replace('""', '"')
        tokens.append(_Token(kind, value, match.start(kind)))
        position = match.end()
    return [*tokens, _Token("end", "", end)]


def _error(text: str, position: int, expected: str) -> OptionError:
    rest = text[position:].strip()
    place = f"at {rest!r}" if rest else "at the end"
    message = f"--where {text!r} cannot be read {place}: {expected} should be there"
    return OptionError(message)
