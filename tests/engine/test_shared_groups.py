"""Groups that several readers share are made only for the keys that one of them wants."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from engine.frontend import plan_sql
from engine.optimizer import Estimates, optimize, wantedgroups
from operators.rel import Aggregation, Join, Rel, walk

ROWS, DAYS = 20_000, 700

WEEKLY = """with weekly as (
    select d.week, s.shop, sum(s.price) total, count(*) n
    from sales s join days d on s.day = d.id group by d.week, s.shop) """


@pytest.fixture
def tables(differential: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(wantedgroups, "_LARGE_ROWS", 1_000.0)
    monkeypatch.setattr(wantedgroups, "_KEPT", 0.9)
    rng = random.Random(1)
    print("seed 1")
    sales = {
        "day": pa.array([rng.choice([None, *range(DAYS)]) for _ in range(ROWS)], pa.int32()),
        "shop": pa.array([rng.randrange(3) for _ in range(ROWS)], pa.int32()),
        "price": pa.array([rng.randrange(100) for _ in range(ROWS)], pa.int64()),
    }
    days = {
        "id": pa.array(range(DAYS), pa.int32()),
        "week": pa.array([None if i < 7 else i // 7 for i in range(DAYS)], pa.int32()),
        "month": pa.array([i // 30 for i in range(DAYS)], pa.int32()),
    }
    differential.add("sales", pa.table(sales))
    differential.add("days", pa.table(days))
    return differential


def planned(sql: str, tables: Any) -> Rel:
    """The optimized plan of a query, whose answer is DuckDB's, however it is cut."""
    tables.check(sql)
    return optimize(plan_sql(sql, tables.catalog), Estimates())


def reduced(plan: Rel) -> bool:
    """Whether some groups are made of what a semi-join leaves."""
    return any(
        isinstance(r, Join) and r.kind == "semi"
        for g in walk(plan)
        if isinstance(g, Aggregation)
        for r in walk(g.input)
    )


@pytest.mark.parametrize(
    "query",
    [
        # Two months, three weeks apart.
        """select a.week, a.total, b.total from weekly a join days d on a.week = d.week,
            weekly b join days e on b.week = e.week
            where d.month = 2 and e.month = 3 and a.week = b.week - 3 and a.shop = b.shop""",
        # A reader that asks for matches, and one that keeps the other side.
        """select a.week, a.n from weekly a where a.week in (select week from days where month = 4)
            union all
            select d.week, b.n from (select * from days where month = 5) d
            left join weekly b on d.week = b.week""",
        """select a.week, a.n from weekly a join days d on a.week = d.week and d.month = 4
            union all
            select d.week, d.id from days d where d.month = 5
            and not exists (select 1 from weekly b where d.week = b.week and b.n > 100)""",
        # The join that tells stands above another.
        """select a.week, a.total, b.total from (weekly a join weekly b on a.shop = b.shop)
            join days d on a.week = d.week join days e on b.week = e.week
            where d.month = 2 and e.month = 3 and d.id = 61 and e.id = 95""",
    ],
)
def test_only_wanted_groups_are_made(tables: Any, query: str) -> None:
    assert reduced(planned(WEEKLY + query, tables))


@pytest.mark.parametrize(
    "query",
    [
        # One reader wants all weeks.
        """select a.week, a.total, b.total from weekly a join days d on a.week = d.week,
            (select max(total) total from weekly) b where d.month = 2""",
        # What is kept without a match is wanted, too.
        """select a.week, a.n, d.id from weekly a
            left join (select * from days where month = 4) d on a.week = d.week
            union all
            select a.week, a.n, d.id from weekly a join days d
            on a.week = d.week and d.month = 5""",
        """select a.week, a.n from weekly a
            where not exists (select 1 from days d where d.week = a.week and d.month = 4)
            union all
            select a.week, a.n from weekly a join days d on a.week = d.week and d.month = 5""",
        # Ranks are among all groups.
        """select * from (select week, n, row_number() over (order by total, week, shop) r
            from weekly) a join days d on a.week = d.week and d.month = 4
            union all
            select a.week, a.n, 0, d.* from weekly a join days d on a.week = d.week
            and d.month = 5""",
        # A value of all groups.
        """select a.week, a.n, (select sum(n) from weekly) from weekly a
            join days d on a.week = d.week and d.month = 4""",
        # NULL is equal to NULL here.
        """select a.week, a.n from weekly a join (select * from days where id < 3) d
            on a.week is not distinct from d.week
            union all
            select a.week, a.n from weekly a join (select * from days where id = 9) d
            on a.week is not distinct from d.week""",
    ],
)
def test_what_a_reader_wants_is_there(tables: Any, query: str) -> None:
    assert not reduced(planned(WEEKLY + query, tables))


def test_answers_of_random_readers(tables: Any) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(15):
        parts = []
        for _ in range(rng.choice([2, 2, 3])):
            month, kind = rng.randrange(24), rng.choice(["join", "left join", "semi join"])
            side = f"(select * from days where month = {month}) d"
            text = f"select a.week, a.shop, a.total from weekly a {kind} {side} on a.week = d.week"
            if rng.random() < 0.3:
                text = (
                    "select d.week, a.shop, a.total from "
                    f"{side} {rng.choice(['join', 'left join'])} weekly a on a.week = d.week"
                )
            parts.append(text)
        planned(WEEKLY + " union all ".join(parts), tables)
