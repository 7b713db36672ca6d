"""What the tests of conditions share: rows of many types, random conditions, DuckDB's opinion."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, get_args

import duckdb
import pyarrow as pa
from hypothesis import strategies as st

from millstream.log.predicate import And, Comparison, IsIn, IsNull, Not, Operator, Or, Predicate

SCHEMA = pa.schema(
    [
        ("small", pa.int8()),
        ("great", pa.uint64()),
        ("real", pa.float64()),
        ("text", pa.string()),
        ("raw", pa.binary()),
        ("flag", pa.bool_()),
        ("price", pa.decimal128(9, 2)),
        ("day", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)
NAN = float("nan")

_LONG = "a common start of more than thirty-two bytes, "
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "small": st.integers(-3, 3),
    "great": st.sampled_from([0, 1, 2**53, 2**53 + 1, 2**64 - 1]),
    "real": st.sampled_from([-1.5, -0.0, 0.0, 2.0, float("inf"), -float("inf"), NAN]),
    "text": st.sampled_from(["", "a", "b", "ä", _LONG, _LONG + "1", _LONG + "2"]),
    "raw": st.sampled_from([b"", b"\x00", b"\xff", b"\xff" * 40, b"\xff" * 40 + b"\x01"]),
    "flag": st.booleans(),
    "price": st.sampled_from([Decimal("-1.00"), Decimal("0.00"), Decimal("1.25")]),
    "day": st.sampled_from([date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29)]),
    "at": st.sampled_from([datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=h) for h in (0, 1)]),
}


def rows() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: st.none() | each for name, each in VALUES.items()})


def _values(name: str) -> st.SearchStrategy[Any]:
    # Those beyond the column's type, too.
    more: dict[str, st.SearchStrategy[Any]] = {
        "small": st.sampled_from([-1000, 1000, 0.5]),
        "great": st.sampled_from([-1, 2**64]),
        "price": st.sampled_from([Decimal("0.125"), 1]),
    }
    return VALUES[name] | more.get(name, st.nothing())


@st.composite
def leaves(draw: st.DrawFn) -> Predicate:
    name = draw(st.sampled_from(sorted(VALUES)))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return IsNull(name)
    if kind == 1:
        return IsIn(name, tuple(draw(st.lists(_values(name), max_size=3))))
    operator: Operator = draw(st.sampled_from(get_args(Operator)))
    return Comparison(name, operator, draw(_values(name)))


def predicates() -> st.SearchStrategy[Predicate]:
    def joined(parts: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
        some = st.lists(parts, max_size=3).map(tuple)
        return some.map(And) | some.map(Or) | parts.map(Not)

    return st.recursive(leaves(), joined, max_leaves=6)


def chosen(table: pa.Table, predicate: Predicate) -> pa.Table:
    """The rows that DuckDB keeps, in their order."""
    numbered = table.append_column("_n", pa.array(range(table.num_rows)))
    connection = _connection()
    connection.register("rows", numbered)
    query = f"select _n from rows where {sql_of(predicate)} order by _n"
    found = [row[0] for row in connection.sql(query).fetchall()]
    return table.take(pa.array(found, pa.int64()))


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("set timezone = 'UTC'")
    return connection


def sql_of(predicate: Predicate) -> str:
    match predicate:
        case Comparison(column=name, operator=operator, value=value):
            return _compared(name, operator, value)
        case IsIn(column=name, values=values):
            return _joined("or", [_compared(name, "==", each) for each in values], "false")
        case IsNull(column=name):
            return f'("{name}" is null)'
        case And(parts=parts):
            return _joined("and", [sql_of(each) for each in parts], "true")
        case Or(parts=parts):
            return _joined("or", [sql_of(each) for each in parts], "false")
        case Not(part=part):
            return f"(not {sql_of(part)})"
    raise AssertionError(predicate)


def _joined(word: str, parts: list[str], neutral: str) -> str:
    return f"({f' {word} '.join(parts)})" if parts else f"({neutral})"


def _compared(name: str, operator: str, value: object) -> str:
    sign = "=" if operator == "==" else operator
    sql = f'("{name}" {sign} {_literal(value)})'
    if name != "real":
        return sql
    # In DuckDB NaN equals itself and is the greatest of all.
    differs = "true" if operator == "!=" else "false"
    nan = (
        f'isnan("real") or {"true" if isinstance(value, float) and math.isnan(value) else "false"}'
    )
    return f'(case when "real" is null then null when {nan} then {differs} else {sql} end)'


def _literal(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"'{value}'::double"
        case int():
            return f"{value}::hugeint"
        case bytes():
            return "'" + "".join(f"\\x{each:02x}" for each in value) + "'::blob"
        case str():
            return f"'{value}'"
        case datetime():
            return f"'{value.isoformat()}'::timestamptz"
        case date():
            return f"'{value.isoformat()}'::date"
        case _:
            return str(value)
