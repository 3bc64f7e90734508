"""What is not supported is refused by name; what is wrong is said in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.errors import SqlError, SqlSyntaxError, TableNotFoundError, UnsupportedSqlError

if TYPE_CHECKING:
    from conftest import Harness


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("select a, a in (select a from u) from t", "IN"),
        ("select a from t where (a in (select a from u)) is null", "IN"),
        ("select a from t where not (b = 1 or a in (select a from u))", "IN"),
        ("select a from t where a = any (select a from u)", "ANY"),
        ("select a from t intersect all select a from u", "INTERSECT ALL"),
        ("select a from t except all select a from u", "EXCEPT ALL"),
        ("select a from t union by name select a from u", "UNION BY NAME"),
        (
            "with recursive r as (select 1 as n union all select n+1 from r where n < 5)"
            " select * from r",
            "recursive",
        ),
        ("select distinct on (b) a from t", "DISTINCT ON"),
        ("select a from t using sample 3", "USING SAMPLE"),
        ("select a from t tablesample 50%", "TABLESAMPLE"),
        ("select a from t limit 50%", "LIMIT"),
        ("select * from range(3)", "RANGE"),
        ("select * from read_parquet('x.parquet')", "READ_PARQUET"),
        ("select * from t, lateral (select t.a + 1 as q) z", "LATERAL"),
        ("select * from t positional join u", "POSITIONAL"),
        ("select unnest([1, 2])", "UNNEST"),
        ("select [1, 2]", "lists"),
        ("select {'a': 1}", "structs"),
        ("pivot t on b using sum(a)", "PIVOT"),
        ("create table z(a int)", "CREATE"),
        ("insert into t values (1)", "INSERT"),
        ("explain select 1", "EXPLAIN"),
        ("copy t to 'x.parquet'", "COPY"),
        ("select columns('a') from t", "COLUMNS"),
        ("select sum(a) over (order by l range between 1 preceding and current row) from t", ""),
        ("select sum(a) over (order by l groups between 1 preceding and current row) from t", ""),
        ("select lag(a ignore nulls) over (order by l) from t", "IGNORE NULLS"),
        ("select sum(a) filter (where b > 0) over () from t", "FILTER"),
        ("select case when exists (select 1 from u where u.a=t.a) then 1 end from t", "correlated"),
        ("select u.name, (select t.s from t where t.a = u.a limit 1) from u", "correlated"),
        ("select a from t order by s collate nocase", "collations"),
        ("select list(a) from t", "array_agg"),
        ("select mode(a) from t", "mode"),
        ("select bit_count(a) from t", "bit_count"),
        ("select quantile_cont(a, [0.25, 0.5]) from t", "lists"),
        ("select percentile_cont(0.5) within group (order by a) from t", "WITHIN GROUP"),
        ("select mode() within group (order by a) from t", "WITHIN GROUP"),
        ("select entropy(a) from t", "entropy"),
        ("select random()", "random"),
        ("select u.k, (select max(a) from t where b = max(u.a)) from u group by u.k", "outer"),
        ("select k, (select max(u.a)) from u group by k", "outer"),
        ("select first_value(s order by a) over (partition by b) from t", "ORDER BY"),
        ("select sum(a order by l) over () from t", "ORDER BY"),
        ("select string_agg(s, ',' order by a) over () from t", "ORDER BY"),
        ("select a from t where ts - timestamp '2000-01-01' > interval 1 day", "intervals"),
        ("select (ts - timestamp '2000-01-01') in (interval 1 day) from t", "intervals"),
        ("select 123456789012345678901234567890123456789, a from t", "HUGEINT"),
        ("select a from t where a < 170141183460469231731687303715884105727", "HUGEINT"),
        ("select a from u where a in (select a from t where b = k union select 7)", "correlated"),
        (
            "select a from u where a in (select row_number() over (order by a) from t where b = k)",
            "window function in a correlated subquery",
        ),
        (
            "select a, (select sum(sum(b)) over () from t where t.a = u.a) from u",
            "window function in a correlated subquery",
        ),
        ("select a from t where (a, b) = (7, 2)", "row"),
        ("select a from t where (a, b) in (select a, k from u)", "IN"),
        ("select timestamptz '2000-01-01 00:00:00+00' from t", "TIMESTAMP WITH TIME ZONE"),
    ],
)
def test_unsupported_constructs_are_named(harness: Harness, sql: str, named: str) -> None:
    with pytest.raises(UnsupportedSqlError) as caught:
        harness.plan(sql)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "line", "column"),
    [
        ("select a frm t where", 1, 14),
        ("select a\nfrom t\nwhere a = = 3", 3, 11),
        ("selec 1", 1, 1),
        ("select (1", 1, None),
        ("select 'abc", 1, None),
    ],
)
def test_syntax_errors_say_where(harness: Harness, sql: str, line: int, column: int | None) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        harness.plan(sql)
    assert caught.value.line == line
    assert column is None or caught.value.column == column
    assert "\n" not in str(caught.value)
    assert f"line {line}, column " in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("select nosuch from t", "nosuch"),
        ("select t.nosuch from t", "nosuch"),
        ("select t.a from t as t2", "t"),
        ("select a from t, u", "a"),
        ("select a, count(*) from t", "GROUP BY"),
        ("select sum(sum(a)) from t", "aggregate"),
        ("select a from t where sum(a) > 1", "WHERE"),
        ("select s + 1 from t where dt", "DATE"),
        ("select nosuch(a) from t", "nosuch"),
        ("select a from t union select a, b from t", "column"),
        ("select a from t order by 3", "ORDER"),
        ("select 1; select 2", "one statement"),
        ("", "the query is empty"),
        ("select ?", "parameter"),
        ("select upper(dt) from t", "upper"),
        ("select a from t join u using (b)", "b"),
        ("select a from other.t", "other"),
        ("select a from t limit -1", "negative"),
    ],
)
def test_wrong_queries_are_explained_in_one_line(harness: Harness, sql: str, part: str) -> None:
    with pytest.raises(SqlError) as caught:
        harness.plan(sql)
    assert part.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_what_duckdb_refuses_is_told_in_its_words_whatever_else_is_not_supported(
    harness: Harness,
) -> None:
    with pytest.raises(UnsupportedSqlError, match="DISTINCT ON"):
        harness.plan("select distinct on (b) a from t")
    with pytest.raises(SqlError, match="nosuch") as caught:
        harness.plan("select distinct on (b) a from t where nosuch = 1")
    assert not isinstance(caught.value, UnsupportedSqlError)


def test_a_missing_table_comes_with_near_names(tpcds: object) -> None:
    with pytest.raises(TableNotFoundError, match="store_sales") as caught:
        tpcds.harness.plan("select * from store_sale")  # type: ignore[attr-defined]
    assert caught.value.near[0] == "store_sales"


@pytest.mark.parametrize(
    "sql",
    [
        "select * from nosuch",
        "select (select count(*) from nosuch) from t",
        "with x as (select * from nosuch) select * from x",
        # Neither Python variables of the front end nor files are tables.
        "select * from text",
        "select * from 'setup.py'",
    ],
)
def test_only_registered_tables_are_tables(harness: Harness, sql: str) -> None:
    with pytest.raises(TableNotFoundError):
        harness.plan(sql)


def test_names_are_found_without_regard_to_case(harness: Harness) -> None:
    assert harness.plan('SELECT A, "B", T.D AS Dd FROM T').schema.names == ("a", "b", "Dd")


def test_the_front_end_survives_its_errors(harness: Harness) -> None:
    for sql in ("select", "select nosuch from t", "select unnest([1])"):
        with pytest.raises(SqlError):
            harness.plan(sql)
    harness.check("select count(*) from t")
