"""What is answered without asking DuckDB is what DuckDB would have said."""

from __future__ import annotations

import pytest
from sqlglot import exp, parse_one

from engine.dialect import Oracle, Signatures
from engine.dialect.bound import Term, Translator
from engine.dialect.literals import NOT_PLAIN, plain_cast
from engine.dialect.plain import plain_condition, plain_constant
from engine.dialect.syntax import duckdb_sql

CONDITIONS = [
    ("c0 = 2002", ["BIGINT"]),
    ("c0 = 2002", ["INTEGER"]),
    ("c0 = -5", ["BIGINT"]),
    ("3 < c0", ["BIGINT"]),
    ("c0 = 3000000000", ["BIGINT"]),
    ("c0 <> 'a''b'", ["VARCHAR"]),
    ("c0 = c1", ["DATE", "DATE"]),
    ("c0 = c1", ["DOUBLE", "DOUBLE"]),
    ("c0 >= c1", ["BIGINT", "INTEGER"]),
    ("c0 = c1", ["SMALLINT", "INTEGER"]),
    ("c0 = c1", ["DECIMAL(7,2)", "DECIMAL(7,2)"]),
    ("c0 IN ('a', 'b')", ["VARCHAR"]),
    ("c0 NOT IN ('a', 'b')", ["VARCHAR"]),
    ("c0 IN (1, -2, 3)", ["BIGINT"]),
    ("c0 BETWEEN 16 AND 20", ["BIGINT"]),
    ("c0 BETWEEN 16 AND c1", ["BIGINT", "INTEGER"]),
    ("c0 BETWEEN 'a' AND 'b'", ["VARCHAR"]),
    ("c0 IS NULL", ["TIMESTAMP"]),
    ("c0 IS NOT NULL", ["VARCHAR"]),
    ("c0 = 'a' OR c0 = 'b' OR (c1 = 3 AND c0 = 'x')", ["VARCHAR", "BIGINT"]),
    ("(c0 = 'x') AND c0 > 'w' AND (c1 IS NULL)", ["VARCHAR", "BIGINT"]),
]

ASKED = [
    ("c0 = 3000000000", ["INTEGER"]),
    ("c0 = 1.5", ["DECIMAL(7,2)"]),
    ("c0 = 3", ["DECIMAL(7,2)"]),
    ("c0 = '3'", ["BIGINT"]),
    ("c0 = 300", ["TINYINT"]),
    ("c0 = 1e3", ["BIGINT"]),
    ("c0 = 12345678901234567890", ["BIGINT"]),
    ("c0 = c1", ["DATE", "TIMESTAMP"]),
    ("c0 = c1", ["UINTEGER", "BIGINT"]),
    ("c0 = c1", ['"NULL"', '"NULL"']),
    ("c0 IN ('a', NULL)", ["VARCHAR"]),
    ("c0 IN ('a', c1)", ["VARCHAR", "VARCHAR"]),
    ("c0 + 1 = 3", ["BIGINT"]),
    ("c0 LIKE 'a%'", ["VARCHAR"]),
    ("NOT (c0 = 'a')", ["VARCHAR"]),
    ("c0 = 'a' OR c0 LIKE 'b'", ["VARCHAR"]),
    ("1 = 2", []),
]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def leaves_of(types: list[str]) -> list[Term]:
    return [Term(f"L{i}", t) for i, t in enumerate(types)]


def asked(oracle: Oracle, node: exp.Expr, types: list[str]) -> Term:
    plan = oracle.bind([duckdb_sql(node)], types)
    return Translator(oracle, Signatures(), leaves_of(types))(plan["expressions"][0])


@pytest.mark.parametrize(("text", "types"), CONDITIONS)
def test_a_plain_condition_reads_as_duckdb_binds_it(
    oracle: Oracle, text: str, types: list[str]
) -> None:
    node = parse_one(text, read="duckdb")
    leaves = leaves_of(types)
    found = plain_condition(node, leaves, Translator(oracle, Signatures(), leaves))
    assert found is not None
    assert (found.text, found.type) == (asked(oracle, node, types).text, "BOOLEAN")


@pytest.mark.parametrize(("text", "types"), ASKED)
def test_what_is_not_plain_is_asked(oracle: Oracle, text: str, types: list[str]) -> None:
    leaves = leaves_of(types)
    node = parse_one(text, read="duckdb")
    assert plain_condition(node, leaves, Translator(oracle, Signatures(), leaves)) is None


@pytest.mark.parametrize(
    "text",
    [
        "2000 + 1",
        "(1200 + -3)",
        "5 - 7",
        "CAST('2000-02-29' AS DATE)",
        "CAST('1969-12-31' AS DATE)",
        "DATE '0001-01-01'",
    ],
)
def test_plain_constants_have_duckdbs_type_and_value(oracle: Oracle, text: str) -> None:
    found = plain_constant(parse_one(text, read="duckdb"))
    assert found is not None
    assert found == oracle.evaluate(text)


@pytest.mark.parametrize(
    "text",
    [
        "2147483647 + 1",
        "3000000000 + 1",
        "1 + 1.5",
        "2 * 3",
        "CAST('2001-02-29' AS DATE)",
        "CAST('2000-1-1' AS DATE)",
        "TRY_CAST('2000-01-01' AS DATE)",
        "CAST('2000-01-01' AS TIMESTAMP)",
        "CAST(20000101 AS VARCHAR)",
    ],
)
def test_other_constants_are_asked(text: str) -> None:
    assert plain_constant(parse_one(text, read="duckdb")) is None


@pytest.mark.parametrize("value", ["0", "7", "-38", "99999", "2147483647", "-2147483648"])
@pytest.mark.parametrize(
    "target", ["INTEGER", "BIGINT", "DOUBLE", "DECIMAL(12,2)", "DECIMAL(18,0)", "DECIMAL(4,1)"]
)
def test_plain_casts_of_integers(oracle: Oracle, value: str, target: str) -> None:
    same_as_duckdb(oracle, int(value), "INTEGER", f"CAST({value} AS INTEGER)", target)


@pytest.mark.parametrize("text", ["0.1", "1.2", "-0.05", "66.67", "100.000", "0.95", "-3"])
@pytest.mark.parametrize("target", ["DOUBLE", "DECIMAL(12,3)", "DECIMAL(4,2)", "BIGINT", "VARCHAR"])
def test_plain_casts_of_decimals(oracle: Oracle, text: str, target: str) -> None:
    source = f"CAST('{text}' AS DECIMAL(9,3))"
    known = oracle.evaluate(source)
    assert known is not None
    same_as_duckdb(oracle, known[1], "DECIMAL(9,3)", source, target)


def same_as_duckdb(oracle: Oracle, value: object, source: str, text: str, target: str) -> None:
    found = plain_cast(value, source, target)
    if found is NOT_PLAIN:
        return
    known = oracle.evaluate(f"CAST({text} AS {target})")
    assert known is not None
    assert (repr(found), target) == (repr(known[1]), known[0])


def test_most_casts_of_constants_are_plain() -> None:
    cases = [(7, "INTEGER", "BIGINT"), (7, "INTEGER", "DECIMAL(7,2)"), (None, "INTEGER", "DATE")]
    assert all(plain_cast(*case) is not NOT_PLAIN for case in cases)
