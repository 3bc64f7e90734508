"""Where the planner below this engine would change the answer.

Aggregates over all rows have a row of no rows, too: nothing may be filtered below them. Rows of
which no column is read are rows. NULLs that are equal in a join stay equal whatever is joined next.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from engine.errors import UnsupportedSqlError

if TYPE_CHECKING:
    from conftest import Differential

# Conditions that depend on no row of what they stand over, some of which become so only where the
# column that they are on is found to be a subquery.
TOTALS = [
    "select count(*) as c from t having (select count(*) from u) < 0",
    "select count(*) as c from t having (select count(*) from u) >= 0",
    "select count(*) as c, (select count(*) from u) as z from t having z < 0",
    "select count(*) as c from t having exists (select 1 from u where a is null)",
    "select count(*) as c from t having 3 in (select a from u)",
    "select count(*) as c from t having null not in (select a from u)",
    "select a, count(*) as c from t group by rollup (a) having 5 not in (select a from t)",
    "select a, count(*) as c from t group by rollup (a) "
    "having 9 not in (select a from u) and a > 1",
    "select count(*) as c from t group by all having (select count(*) from u) < 0",
    "select a, count(*) as c from t group by all having (select count(*) from u) < 0",
    "select c from (select count(*) as c from t) q where (select count(*) from u) < 0",
    "select c from (select count(*) as c from t) q where 5 not in (select a from t)",
    "select c from (select count(*) as c from t) q where c not in (select a from t)",
    "select c from (select count(*) as c from t) q where c not in (select a from u)",
    "select c from (select count(*) as c, (select count(*) from u) as z from t) q where z < 0",
    "select c from (select count(*) as c, a from t group by rollup (a)) q "
    "where c not in (select a from t)",
    "select c from (select count(*) as c from t group by grouping sets ((a), ())) q "
    "where (select count(*) from u) < 0",
    "select n from (select 5 as n from (select count(*) as c from t) r) q "
    "where (select count(*) from u) < 0",
    "with q as (select count(*) as c, (select count(*) from u) as z from t) "
    "select c from q where z < 0 union all select z from q where z < 0",
    "select z from (select count(*) as c, 1 as z from t union all "
    "select a, (select count(*) from t) from u) q where z < 0",
    "select c from (select count(*) as c from t) q join u on (select count(*) from t) < 0",
    "select a from u where a in (select count(*) from t having (select count(*) from u) < 0)",
    "select a, (select c from (select count(*) as c, (select count(*) from u) as z from t) q "
    "where z < 0) as e from u",
    "select c from (select count(*) as c from t order by c) q where (select count(*) from u) < 0",
    "select sum(a) filter (where (select count(*) from u) < 0) as c from t",
    "select count(*) as c from t where (select count(*) from u) < 0",
]

NO_COLUMNS = [
    "select 1 as one from (select count(*) as c from t limit 1) q",
    "select 5 as five from (select count(*) as c from t) q where (select count(*) from u) >= 0",
    "select count(*) as n from (select count(*) as c from t union all select 1 from u) q",
    "select count(*) as n from (select count(*) as c from t union all select 1 from u) q "
    "where (select count(*) from u) >= 0",
    "select count(*) as n from (select a from t union all select b from u) q",
    "select count(*) as n from (select count(*) as c from t) q cross join u",
    "select count(*) as n from (select count(*) as c from t group by rollup (a)) q",
    "select 'x' as x from (select a from t order by a limit 3) q",
]


# DataFusion loses that NULLs are equal where it orders joins.
NULL_KEYS = [
    "select a.b from t a join t c on a.b is not distinct from c.b cross join u",
    "select a.b from t a join t c on a.b is not distinct from c.b join u on u.a = a.a",
    "select a.b from t a join t c on a.b is not distinct from c.b, u where u.a = c.a",
    "select a.b from t a, t c, u where a.b is not distinct from c.b "
    "and a.a is not distinct from u.a",
    "select a.b, c.a from t a left join t c on a.b is not distinct from c.b and a.a = c.a",
]


@pytest.fixture
def tables(differential: Differential) -> Differential:
    differential.add("t", pa.table({"a": [1, 2, 2, None, 7], "b": ["x", "y", None, "x", "z"]}))
    differential.add("u", pa.table({"a": [2, 5], "b": [0.5, None]}))
    return differential


@pytest.mark.parametrize("sql", TOTALS)
def test_what_depends_on_no_row_is_asked_above_a_total(tables: Differential, sql: str) -> None:
    tables.check(sql)


@pytest.mark.parametrize("sql", NO_COLUMNS)
def test_rows_of_which_nothing_is_read(tables: Differential, sql: str) -> None:
    tables.check(sql)


@pytest.mark.parametrize("sql", NULL_KEYS)
def test_nulls_that_are_equal_stay_so(tables: Differential, sql: str) -> None:
    tables.check(sql)


FIRST = "select {} from {} order by k, v limit 3"


@pytest.mark.parametrize(
    "first",
    [
        FIRST.format("x.k, x.v", "m x semi join m y on x.k = y.k"),
        FIRST.format("k, v", "(select k, v from m union all select v, k from m where k < 0)"),
        f"select k, v from ({FIRST.format('k, v', 'm where k is not null')}) where v is not null",
        f"{FIRST.format('x.k, x.v', 'm x semi join m y on x.k = y.k')} offset 2",
        f"({FIRST.format('x.k, x.v', 'm x semi join m y on x.k = y.k')}) union all "
        f"({FIRST.format('x.k, x.v', 'm x semi join m y on x.k = y.k')} offset 2)",
    ],
)
def test_rows_are_limited_before_a_join_chooses_among_them(
    differential: Differential, first: str
) -> None:
    """DuckDB 1.5.5 looks for the keys of a join below the limits of its other side
    (duckdb/duckdb#22963), in native tables and in files.
    """
    rng = random.Random(5)
    rows = [(rng.choice([None, *range(6)]), rng.randrange(9)) for _ in range(20)]
    keys, values = zip(*rows, strict=True)
    differential.add("m", pa.table({"k": pa.array(keys, pa.int64()), "v": values}))
    differential.add("few", pa.table({"k": pa.array([1, 4], pa.int64()), "b": [0, 9]}))
    for join in ("join", "semi join"):
        differential.check(
            f"select x.k, x.v from ({first}) x {join} (select k from few where b < 5) y "
            "on x.k = y.k"
        )


def test_an_aggregate_is_not_looked_for_in_a_subquery(tables: Differential) -> None:
    for text in ("count(*) not in (select a from u)", "c not in (select a from u)"):
        sql = f"select count(*) as c from t having {text}"
        with pytest.raises(UnsupportedSqlError, match="NOT IN \\(subquery\\) of an aggregate"):
            tables.ours(sql)
