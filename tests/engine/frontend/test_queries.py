"""SQL constructs: each query has DuckDB's answer, names and types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Harness

UNORDERED = [
    "select * from t",
    "select t.* exclude (a, b) from t",
    "select * replace (a+1 as a) from t",
    "select * exclude a from t",
    "select * rename (a as z) from t",
    'select A, "B", T.D from T',
    "select a x, x+1 as y, y*2 from t",
    "select a from t limit 0",
    "select bo, count(*), sum(a), avg(d) from t group by bo",
    "select bo, count(*) from t group by 1",
    "select bo, count(*) from t group by all",
    "select bo as k, count(*) from t group by k",
    "select a+1, count(*) from t group by a+1",
    "select bo, b, sum(a), grouping(bo), grouping(bo,b) from t group by rollup(bo,b)",
    "select bo, b, sum(a) from t group by cube(bo,b)",
    "select bo, b, sum(a) from t group by grouping sets ((bo),(b),())",
    "select bo, b, sum(a) from t group by grouping sets ((bo,b),bo,())",
    "select bo, b, count(*) from t group by bo, rollup(b)",
    "select bo, count(*) c from t group by bo having c > 1",
    (
        "select count(*), count(a), count(distinct b), sum(distinct b), min(s), max(dt), "
        "sum(x), avg(x), avg(a), stddev(a), var_pop(d), median(a), bool_and(bo), "
        "bool_or(bo) from t"
    ),
    "select sum(a) filter (where b > 0), count(*) filter (where a is null) from t",
    "select string_agg(s, ',' order by a) from t",
    "select any_value(bo) is not null from t",
    "select count(*) from n",
    "select sum(a), count(a), min(a) from n",
    "select sum(a) from n group by a",
    "select sum(a)+1, sum(a)*2.5, sum(d)/count(*), sum(l)/2, avg(d)*1.1 from t",
    "select t.a, u.name from t join u on t.a = u.a",
    "select t.a, u.name from t right join u on t.a = u.a",
    "select t.a, u.name from t full join u on t.a = u.a",
    "select * from t full join u using (a)",
    "select a, name from t full join u using (a)",
    "select a, name from t left join u using (a)",
    "select a, name from t right join u using (a)",
    "select a, name from t natural join u",
    "select t.a, u.a from t, u where t.a = u.a and u.k > 0",
    "select count(*) from t cross join u",
    "select t.a from t semi join u on t.a = u.a",
    "select t.a from t anti join u on t.a = u.a",
    "select t.a from t join u on t.l = u.k or t.a = u.a",
    "select t.a from t join u on t.l = u.a",
    "select t.a from t join u on t.a + 1 = u.k + 1",
    "select t.a, u.k from t left join u on t.a = u.a and u.k > 1 and t.b < 0",
    "select t.a from t join u on t.a is not distinct from u.a",
    "select a from t where a in (select a from u)",
    "select a from t where a not in (select a from u)",
    "select a from t where a not in (select a from u where a is not null)",
    "select a from t where a not in (select a from n)",
    "select a from t where a in (select a from u) or b = 2",
    "select a from t where not (a in (select a from u where a is not null)) and b=2",
    "select a from t where l in (select a from u)",
    "select a from t where exists (select 1 from u where u.a = t.a)",
    "select a from t where not exists (select 1 from u where u.a = t.a)",
    "select a from t where exists (select 1 from u where u.a = t.a) or b = 0",
    (
        "select a from t where not exists (select 1 from u where u.a = t.a) and not "
        "(exists (select 1 from u where u.k=t.b) or b=0)"
    ),
    "select a, (select max(k) from u) from t",
    "select a, (select count(*) from u where u.a = t.a) from t",
    "select a, (select sum(k) from u where u.a = t.a) from t",
    "select a, (select count(*)+1 from u where u.a = t.a) from t",
    "select a, (select coalesce(sum(k),0) from u where u.a = t.a) from t",
    "select a, (select 2*count(*) from u where u.a = t.a and u.k > 1) from t",
    "select a from t where a > (select avg(a) from t t2 where t2.b = t.b)",
    "select a from t where (select count(*) from u where u.a = t.a) = 0",
    "select a from t where d > (select 1.2*avg(d) from t t2 where t2.bo = t.bo)",
    "select a from t union select a from u",
    "select a from t union all select a from u",
    "select a from t union all select name from u",
    "select a from t union all select 1.5",
    "select null union all select a from u",
    "select a from t intersect select a from u",
    "select a from t except select a from u",
    "(select a from t order by a limit 1) union all (select a from u order by a limit 1)",
    "select b from (select a as b from t) where b > 0",
    (
        "with c as (select a, count(*) n from u group by a) select c1.a, c2.n from c c1 "
        "join c c2 on c1.a=c2.a"
    ),
    (
        "with c(z) as (select a from u), e as (select z+1 as z from c) select * from e "
        "union all select * from c"
    ),
    "with c as (select 1 as a) select * from c, (with c as (select 2 as a) select * from c) d",
    "with t as (select 1 as a) select * from t",
    "select * from (values (1,'a'),(2.5,null)) v(x,y)",
    "select x+1 from (values (1),(2)) v(x)",
    "select 1",
    "select 1 where false",
    "select 7/2, a/b from (select 7 as a, 2 as b)",
    "select a, row_number() over (order by a) rn from t qualify rn <= 2",
    "select bo, rank() over (order by sum(a)) from t group by bo",
    "select bo, sum(sum(a)) over () from t group by bo",
    "select a, sum(a) over w from t window w as (partition by b order by a)",
    'select a as "My Col", s "x""y" from t',
    'select count(*) as "count" from t',
    "select a from t join u using (a) where u.name='z'",
    "select sum(a) over (order by l range between unbounded preceding and current row) from t",
    "select a from t where case when a > 0 then bo else true end",
    "select a from t where a",
    "select * from (select a, b from t) q(m, n) where m > n",
    "select a, a from t",
    "select * from t t1 join t t2 on t1.a=t2.a",
    "select a, b, a from (select * from t)",
    "select max(a) from t having max(a) > 100",
    "select 1 from t having count(*) > 1",
    "select 'x' as a, count(*) from t group by 'x'",
    "select a from t where null",
    "select a from t where 1=1 and a>0",
    "select * from u where name in ('x','y') and k between 1 and 1",
    "select sum(case when a > 0 then 1 else 0 end), sum(d*(1-x)), avg(a+d), max(a||s) from t",
    "select d, count(*) from t group by d having sum(d) > (select avg(d) from t)",
    (
        "select a from t where dt between cast('1999-12-31' as date) and "
        "cast('1999-12-31' as date) + interval 31 days"
    ),
    "select a from t where dt between date '1999-12-31' and date '1999-12-31' + 31",
    "select avg(a) from t where l > 5 group by ()",
    "from t select a",
    "from t",
    "table u",
    "select u.name from u where u.a = (select max(a) from t where a < 5)",
    "select a from t where 3 in (select a from u)",
    "select a from t where 3 not in (select a from u)",
    (
        "select t.a from t left join (select a, count(*) c from u group by a) z on z.a = "
        "t.a where z.c is null"
    ),
    "select sum(distinct a) / count(distinct a) from t",
    "select * from (select a, rank() over (partition by bo order by a desc) r from t) where r < 3",
    (
        "select bo, b, rank() over (partition by grouping(bo)+grouping(b), case when "
        "grouping(b)=0 then bo end order by sum(a) desc) from t group by rollup(bo,b)"
    ),
    "select a from t where a = 7 -- comment",
    "select /* c */ a from t",
    "select date '2000-01-01' + a from t",
    "select a from main.t",
    "select u.* from t join u on t.a=u.a",
    "select struct_extract({'a':1},'a')",
    "select approx_count_distinct(a) from t",
    "select a from t where s like 'a%' and s not like '%z' and s ilike '%B'",
    (
        "select round(avg(d), 2), round(sum(d) / 3, 2), cast(avg(a) as int), cast(sum(x) "
        "as decimal(15,4)) from t"
    ),
    "select a from t where a = 7 or a = 3 and not b = 2",
    "select b, count(distinct a), sum(distinct a), count(*) from t group by b",
    "select count(distinct a), count(distinct s) from t",
    "select bo, avg(distinct a) from t group by bo",
    # DataFusion moves what it finds to be false past aggregates that have a row nevertheless.
    "select c from (select count(a) as c from t) q where c = 0 and c = 3",
    "select c + 1 as d from (select sum(a) as c from t) q where c > 3 and c < 2",
    "select count(a) as c from t having count(a) = 0 and count(a) = 3",
    "select count(*) as c from t where a = 1 and a = 2",
    "select c from (select count(*) as c from (select * from t where false) e) q where c = 0",
    "select name, (select count(*) from t where t.a = u.a and b = 1 and b = 2) as c from u",
]

CORRELATED = [
    "select a from t where b in (select k from u where u.a = t.a)",
    "select a from t where b in (select k from u where u.a = t.a) or a = 0",
    "select a from t where x in (select k + 0.5 from u where u.a = t.a or u.a is null)",
    "select a from t where x in (select k from u where u.a <= t.a)",
    "select a from t where b in (select max(k) from u where u.a = t.a)",
    "select a from t where b in (select count(*) from u where u.a = t.a)",
    "select a from t where l in (select count(*) from u where u.a = t.b)",
    "select a from t where b in (select count(*) from u where u.a = t.a having count(*) > 1)",
    "select a from t where b in (select k from u where u.a = t.a group by k)",
    "select a from t where b in (select distinct k from u where u.a = t.a)",
    "select a from t where b in (select u.k from u join u z on u.a = z.a where u.a = t.a)",
    "select a from t where b in (select k from u where u.a = t.a) and a not in (select -1)",
    "select a, count(*) from t group by a having a in (select u.a from u where u.a = t.a)",
    "select a from t where b in (select k from u where u.a = t.a and k in (select z.k from u z "
    "where z.name >= u.name))",
]

# In HAVING an alias goes before a column, unless that is a key.
HAVING = [
    "select sum(b) b from t group by bo having b > 1",
    "select sum(a) a from t having a > 1",
    "select max(b) b, bo from t group by bo having b > 1 and bo",
    "select -b b, sum(a) from t group by t.b having b > 0",
    "select b + 1 b, count(*) from t group by all having b > 1",
    "select b + 1 b, count(*) from t group by 1 having b > 1",
    "select sum(a) a from t group by b having sum(a) > 1 and a > 2",
    "select sum(x) x, b from t group by b having x between -5 and 5",
]

# Several unions have one type together, to which every value is cast at once.
UNIONS = [
    "select a from t union all select x from t union all select s from t union all select a from t",
    "(select a from t union all select x from t) union all select s from t",
    "select s from t union all (select a from t union all select x from t)",
    "select * from (select a from t union all select x from t) union all select s from t",
    "(select a from t union all select x from t limit 50) union all select s from t",
    "select a from t union select x from t union select s from t",
    "select a from t union all select x from t union select s from t",
    "select a from t union select x from t union all select s from t",
    "select 1 as c union all select 2.5 union all (select 3 union all select 4 limit 1)",
    "select null as c union all select 2.5 union all select null union select 4",
    "select a from t union all select 1 union select a from t union all select 5",
    "select a from t union all select x from t intersect select s from t",
    "with c as (select a from t) select * from c union all (with c as (select 1) select * from c)",
]

ORDERED = [
    "select -a as a from t order by a",
    "select -a as a from t order by t.a",
    "select a from t order by a",
    "select a from t order by a desc",
    "select a from t order by a nulls first",
    "select a, b from t order by all",
    "select a, b from t order by 2 desc, 1",
    "select a from t order by a limit 2",
    "select a from t order by a limit 2 offset 1",
    "select a from t order by a offset 2",
    "select a from t order by a limit null",
    "select bo, count(*) from t group by bo having count(*) > 1 order by count(*) desc, bo",
    "select distinct bo from t order by bo",
    "select distinct bo, b from t order by b, bo",
    "select t.a, u.name from t left join u on t.a = u.a order by t.a, u.name",
    "select a from t union all select a from u order by a limit 3",
    "select a, b from t qualify row_number() over (partition by b order by a) = 1 order by a",
    "select a from t group by a order by sum(d), a",
    "select cast(a as varchar) || '-' || coalesce(s,'?') k, count(*) from t group by k order by k",
    "select sum(a), bo from t group by grouping sets ((bo, b), (bo), ()) order by all",
    "select a from t order by (select max(k) from u), a",
    "select ifnull(t.a, 99) from t order by 1",
    "select grouping(b) from t group by rollup(bo, b) order by grouping(b) desc, bo",
]


@pytest.mark.parametrize("sql", UNORDERED + CORRELATED + HAVING + UNIONS)
def test_query(harness: Harness, sql: str) -> None:
    harness.check(sql)


@pytest.mark.parametrize("sql", ORDERED)
def test_query_with_an_order(harness: Harness, sql: str) -> None:
    harness.check(sql, ordered=True)


def test_nulls_come_last_in_both_directions(harness: Harness) -> None:
    for direction in ("ASC", "DESC"):
        table = harness.check(f"SELECT a FROM t ORDER BY a {direction}", ordered=True)
        assert table.column("a").to_pylist()[-1] is None


def test_a_window_gives_the_same_whatever_the_partition(harness: Harness) -> None:
    table = harness.check(
        "SELECT a, sum(l) OVER (PARTITION BY bo ORDER BY a ROWS BETWEEN 1 PRECEDING"
        " AND 1 FOLLOWING) AS s, dense_rank() OVER (ORDER BY bo DESC NULLS FIRST) AS r FROM t"
    )
    assert table.schema.names == ["a", "s", "r"]
