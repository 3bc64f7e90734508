"""Which columns a statement can mean."""

from __future__ import annotations

import pytest
from sqlglot import parse_one

from engine.dialect import Mentions

COLUMNS = ["a", "b", "Mixed", "d"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("select a from t", ["a"]),
        ("select A, mixed from t", ["a", "Mixed"]),
        ('select "Mixed" from t', ["Mixed"]),
        ("select count(*) from t", ["a"]),
        ("select count(*) from t where d > 1", ["d"]),
        ("select * from t", COLUMNS),
        ("select t.* from t", COLUMNS),
        ("select * exclude (a) from t", COLUMNS),
        ("select x from (select * from t) as s(x, y, z, w)", COLUMNS),
        ("select x from t as s(x, y)", COLUMNS),
        ("select b from t natural join u", COLUMNS),
        ("select b from t join u using (d)", ["b", "d"]),
        ("from t", COLUMNS),
        ("select b from u where exists (select * from t where t.a = u.a)", ["a", "b"]),
        ("select * from (select d from t) as s", ["d"]),
        ("select * from u join (select d from t) as s on true", ["d"]),
        ("select * from (u join t on true)", COLUMNS),
        ("select * from (select d from t union all select b from t) as s", ["b", "d"]),
        ("select * from (from t) as s", COLUMNS),
        ("with c as (select a from t) select * from c", ["a"]),
        ("select u.* from t join u on true", ["a"]),
        ("select x.* from t as x join u on true", COLUMNS),
        ("with t as (select 1 as d) select * from t", ["d"]),
        ("with t as (select * from t) select d from t", COLUMNS),
        ("with c as (from t), t as (select 2) select * from c join t on true", COLUMNS),
        ("select sum(b) over (partition by d) from t", ["b", "d"]),
    ],
)
def test_columns_that_count(text: str, kept: list[str]) -> None:
    found = Mentions.of(parse_one(text, read="duckdb")).columns("t", COLUMNS)
    assert [COLUMNS[i] for i in found] == kept
